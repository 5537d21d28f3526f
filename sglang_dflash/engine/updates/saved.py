"""A model's weights kept aside while an update may still fail."""

from collections.abc import Iterator, MutableMapping
from typing import NamedTuple

import torch
from torch import nn


class _Kept(NamedTuple):
    holder: MutableMapping  # the dict of a module that the tensor is in
    name: str
    tensor: torch.Tensor
    memory: torch.Tensor  # the same memory, should the update point the tensor elsewhere
    content: torch.Tensor  # a copy on the host


class SavedWeights:
    """Parameters, buffers and other tensors of a model's modules, as they are now, in host memory.

    The others are what some models compute from their parameters, such as the absorbed projections of latent
    attention. Costs as much host memory as the model's weights take on the device.
    """

    def __init__(self, model: nn.Module):
        copies: dict[tuple, torch.Tensor] = {}
        self._kept = []
        for holder, name, tensor in _tensors(model):
            memory = tensor.data
            place = (memory.device, memory.data_ptr(), memory.dtype, memory.shape, memory.stride())
            if place not in copies:
                copies[place] = torch.empty_like(memory, device="cpu").copy_(memory)
            self._kept.append(_Kept(holder, name, tensor, memory, copies[place]))

    @torch.inference_mode()  # some were made under it, and could not be written otherwise
    def restore(self) -> None:
        """Put every tensor back: the same objects in the same memory, with the contents they had."""
        for kept in self._kept:
            if kept.holder.get(kept.name) is not kept.tensor:
                kept.holder[kept.name] = kept.tensor
            if kept.tensor.data_ptr() != kept.memory.data_ptr():
                kept.tensor.data = kept.memory
            kept.memory.copy_(kept.content)


def _tensors(model: nn.Module) -> Iterator[tuple[MutableMapping, str, torch.Tensor]]:
    for module in model.modules():
        for holder in (module._parameters, module._buffers, vars(module)):
            for name, value in holder.items():
                if isinstance(value, torch.Tensor):
                    yield holder, name, value
