"""SGLang's attention backends for GPUs, built over a world's runners; their kernels are ``torch_kernels``'."""

import contextlib
import sys
from types import ModuleType
from typing import NamedTuple

import torch_kernels as kernels
from sglang.srt.layers.attention.attention_registry import ATTENTION_BACKENDS
from sglang.srt.runtime_context import override_platform
from torch.overrides import TorchFunctionMode


class Card(NamedTuple):
    """A backend and the generation of GPU it is built for."""

    backend: str
    capability: tuple[int, int]


CARDS = {
    "fa3": Card("fa3", (9, 0)),
    "fa4": Card("fa4", (10, 0)),
    "flashinfer": Card("flashinfer", (9, 0)),
    "trtllm_mha": Card("trtllm_mha", (10, 0)),
    "trtllm_mha-xqa": Card("trtllm_mha", (9, 0)),
    "triton": Card("triton", (8, 0)),
}


class _OnTheHost(TorchFunctionMode):
    """What asks for a GPU's memory, or for pinned memory, gets the host's."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if str(kwargs.get("device", "")).startswith("cuda"):
            kwargs["device"] = "cpu"
        kwargs.pop("pin_memory", None)
        return func(*args, **kwargs)


def on_the_host():
    """Scope in which CUDA's memory is the host's."""
    return _OnTheHost()


def patch_kernels(monkeypatch) -> None:
    """Put plain torch behind every kernel that a verify pass reaches."""
    with _fake_sgl_kernel():
        from sglang.srt.layers.attention import flashattention_backend
    monkeypatch.setattr(flashattention_backend, "flash_attn_with_kvcache", kernels.flash_attention)
    import flashinfer
    from sglang.srt.layers.attention import flashinfer_backend, trtllm_mha_backend, trtllm_mla_backend

    # SGLang imports FlashInfer only where it finds a GPU.
    for name in (
        "BatchDecodeWithPagedKVCacheWrapper",
        "BatchPrefillWithPagedKVCacheWrapper",
        "BatchPrefillWithRaggedKVCacheWrapper",
        "fast_decode_plan",
    ):
        monkeypatch.setattr(flashinfer_backend, name, getattr(flashinfer, name), raising=False)
    for module in (trtllm_mha_backend, trtllm_mla_backend):
        monkeypatch.setattr(module, "flashinfer", flashinfer, raising=False)
    monkeypatch.setattr(flashinfer.utils, "get_device_sm_count", lambda device: 132)
    monkeypatch.setattr(flashinfer.decode, "trtllm_batch_decode_with_kv_cache", kernels.trtllm_decode)
    monkeypatch.setattr(flashinfer.prefill, "get_batch_prefill_module", lambda *args: kernels.FlashInferModule())
    wrapper = flashinfer.prefill.BatchPrefillWithPagedKVCacheWrapper
    monkeypatch.setattr(wrapper, "forward", kernels.flashinfer_run)


@contextlib.contextmanager
def _fake_sgl_kernel():
    """``sgl_kernel`` cannot be imported without a driver; of it only names are needed here."""
    names = ("merge_state_v2", "flash_attn_varlen_func", "flash_attn_with_kvcache", "get_scheduler_metadata")
    fakes = {name: ModuleType(name) for name in ("sgl_kernel", "sgl_kernel.flash_attn")}
    for fake in fakes.values():
        for name in names:
            setattr(fake, name, None)
    before = {name: sys.modules.get(name) for name in fakes}
    sys.modules.update(fakes)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def serve(card: Card, monkeypatch) -> None:
    """Have SGLang build ``card``'s backend wherever it builds an attention backend."""
    for name in ("attention_registry", "flashattention_backend"):
        monkeypatch.setattr(f"sglang.srt.layers.attention.{name}.get_device_capability", lambda: card.capability)
    make = ATTENTION_BACKENDS[card.backend]
    facts = {f"is_sm{generation}": generation == card.capability[0] * 10 for generation in (90, 100, 120)}

    def build(runner):
        with _fake_sgl_kernel(), on_the_host(), override_platform(**facts):
            backend = make(runner)
        if card.backend == "triton":
            backend.extend_attention_fwd = kernels.triton_extend
        return backend

    # The name of the platform's own.
    monkeypatch.setitem(ATTENTION_BACKENDS, "dflash_cpu", build)
