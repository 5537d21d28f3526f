"""Repairs of SGLang's worker process on a CPU device: each replaces one function or clears one flag."""

import torch
from sglang.srt.distributed import bootstrap
from sglang.srt.distributed.parallel_state import GroupCoordinator

from sglang_dflash.host.contract import Touch

_UPSTREAM = "fixed in SGLang"
TOUCHES = (
    Touch(
        "sglang.srt.distributed.bootstrap:_bind_threads_if_cpu",
        "replaced: demands a NUMA node per rank, we pin nothing",
        "SGLang leaves pinning to an out-of-tree platform",
        ("device",),
    ),
    Touch(
        "sglang.srt.distributed.bootstrap:_init_cpu_threads_env",
        "replaced: calls compiled kernels that are not installed on some hosts",
        "SGLang leaves pinning to an out-of-tree platform",
        ("local_omp_cpuid", "dist_init_method"),
    ),
    Touch(
        "sglang.srt.distributed.parallel_state:GroupCoordinator.all_gather_into_tensor",
        "replaced: goes through a custom op that has no CPU kernel",
        _UPSTREAM,
        ("self", "output", "input"),
    ),
    Touch(
        "sglang.srt.distributed.parallel_state:GroupCoordinator._all_gather_into_tensor",
        "the plain gather it stands for",
        _UPSTREAM,
        ("self", "output", "input"),
    ),
    Touch(
        "sglang.srt.model_executor.model_runner:ModelRunner._extend_forward_kwargs",
        "wrapped: casts input embeddings to bf16 whatever the model's dtype",
        _UPSTREAM,
        ("self", "forward_batch", "pp_proxy_tensors"),
    ),
)


def leave_threads_alone() -> None:
    """SGLang neither pins threads nor asks for one NUMA node per rank."""
    bootstrap._bind_threads_if_cpu = lambda *, device: None
    bootstrap._init_cpu_threads_env = lambda *, local_omp_cpuid, dist_init_method=None: None


def gather_without_custom_op() -> None:
    """Tensor parallel: gather through gloo itself."""
    GroupCoordinator.all_gather_into_tensor = GroupCoordinator._all_gather_into_tensor


def tolerate_host_record_stream() -> None:
    """The built-in DFLASH worker records streams on host tensors, which torch refuses; there is none to record."""
    original = torch.Tensor.record_stream
    if getattr(original, "_ignores_host", False):
        return

    def record_stream(self, stream):
        if self.device.type != "cpu":
            original(self, stream)

    record_stream._ignores_host = True
    torch.Tensor.record_stream = record_stream


def keep_dtype_of_input_embeddings() -> None:
    """The built-in draft model is fed embeddings: hand them over in the model's own dtype."""
    from sglang.srt.model_executor.model_runner import ModelRunner

    original = ModelRunner._extend_forward_kwargs
    if getattr(original, "_keeps_dtype", False):
        return

    def extend_forward_kwargs(self, forward_batch, pp_proxy_tensors):
        kwargs = original(self, forward_batch, pp_proxy_tensors)
        if forward_batch.input_embeds is not None and forward_batch.replace_embeds is None:
            kwargs["input_embeds"] = forward_batch.input_embeds
        return kwargs

    extend_forward_kwargs._keeps_dtype = True
    ModelRunner._extend_forward_kwargs = extend_forward_kwargs
