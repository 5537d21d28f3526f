"""Pinned memory on a host that is its own device."""

import torch

from sglang_dflash.cpu.host import hooks


def test_pinning_gives_the_tensor_itself(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.pin_memory)  # put back afterwards
    hooks.keep_memory_unpinned()
    mask = torch.tensor([True, False])
    pinned = mask.pin_memory()
    assert pinned is mask and pinned.to("cpu", non_blocking=True) is mask
    assert mask.pin_memory("cpu") is mask
