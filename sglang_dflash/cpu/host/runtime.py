"""Repairs of SGLang's worker process on a CPU device: each replaces one function or clears one flag."""

import functools
from typing import Any

import torch
from sglang.srt.distributed.parallel_state import GroupCoordinator
from sglang.srt.layers import logits_processor
from sglang.srt.runtime_context import get_parallel, get_spec

from sglang_dflash.host.contract import Touch

__all__ = ["get_parallel"]

_UPSTREAM = "fixed in SGLang"
_UPDATER = "sglang.srt.model_executor.model_runner_components.weight_updater:WeightUpdater"
UPDATES = (
    "update_weights_from_disk",
    "update_weights_from_tensor",
    "load_weights_from_distributed",
    "update_weights_from_ipc",
    "end_weight_update",
)
TOUCHES = (
    *(
        Touch(f"{_UPDATER}.{name}", "wrapped: copies of weights in another layout follow", "SGLang has a seam for it")
        for name in UPDATES
    ),
    Touch(_UPDATER, "whose model changed", "SGLang has a seam for it", ("get_model",)),
    Touch(
        "sglang.srt.layers.logits_processor:fused_softcap",
        "replaced: Triton",
        "SGLang offers a platform seam",
        ("logits", "cap"),
    ),
    Touch(
        "sglang.srt.models.minimax_m2:rms_sumsq_serial",
        "replaced: Triton",
        "SGLang offers a platform seam",
        ("x1", "x2"),
    ),
    Touch(
        "sglang.srt.models.minimax_m2:rms_apply_serial",
        "replaced: Triton",
        "SGLang offers a platform seam",
        ("x1", "x2", "w1", "w2", "sum_sq", "tp_world", "eps"),
    ),
    Touch(
        "torch:Tensor.record_stream",
        "replaced: refuses host tensors, of which the built-in DFLASH worker records streams",
        "SGLang asks for the device first",
        ("self", "stream"),
    ),
    Touch(
        "torch:get_device_module",
        "wrapped: without an argument it is torch.cuda on a CUDA wheel, even where there is no CUDA device",
        "torch looks for a device",
        ("device",),
    ),
    Touch(
        "torch.library:Library",
        "adds aten::mm.dtype for CPUs, which torch has for accelerators alone",
        "torch has it",
        ("ns", "kind"),
    ),
    Touch(
        "sglang.srt.environ:envs.SGLANG_EAGER_INPUT_NO_COPY",
        "set: an eager forward pass may read the batch's own tensors, which nothing changes on a host",
        "never: public",
    ),
    Touch("sglang.srt.runtime_context:get_parallel", "ranks that share this host's cores", "never: public"),
    Touch("sglang.srt.runtime_context:get_spec", "is this server speculating?", "never: public"),
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


def speculating() -> bool:
    """True where a speculative worker drives this process's model."""
    return get_spec().speculative_algorithm is not None


def softcap_without_triton() -> None:
    """Logit soft caps of a model's head: the in-place kernel's torch twin."""
    logits_processor.fused_softcap = _softcap_in_place


def _softcap_in_place(logits: torch.Tensor, cap: float) -> None:
    logits.div_(cap).tanh_().mul_(cap)


def joint_norms_without_triton(sums, apply) -> None:
    """MiniMax M2 norms queries and keys over all heads of all ranks: ``sums`` and ``apply`` take its kernels' place."""
    from sglang.srt.models import minimax_m2

    minimax_m2.rms_sumsq_serial, minimax_m2.rms_apply_serial = sums, apply


def gather_without_custom_op() -> None:
    """Tensor parallel: gather through gloo itself."""
    GroupCoordinator.all_gather_into_tensor = GroupCoordinator._all_gather_into_tensor


def tolerate_host_record_stream() -> None:
    """The built-in DFLASH worker records streams on host tensors, which torch refuses; there is none."""
    tensor: Any = torch.Tensor
    original = tensor.record_stream
    if getattr(original, "_ignores_host", False):
        return

    def record_stream(self, stream):
        if self.device.type != "cpu":
            original(self, stream)

    tensor.record_stream = _marked(record_stream, "_ignores_host")


def name_the_host_device() -> None:
    """A bare ``torch.get_device_module()`` is torch.cuda on a CUDA wheel, even where there is no CUDA device."""
    library: Any = torch
    original = library.get_device_module
    if getattr(original, "_means_host", False):
        return

    @functools.wraps(original)  # torch's compiler looks at what it wraps
    def get_device_module(device=None):
        return torch.cpu if device is None else original(device)

    library.get_device_module = _marked(get_device_module, "_means_host")


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

    ModelRunner._extend_forward_kwargs = _marked(extend_forward_kwargs, "_keeps_dtype")


def follow_updates(recompute) -> None:
    """Call ``recompute`` with the model after every update of weights, also where no worker of ours serves."""
    from sglang.srt.model_executor.model_runner_components.weight_updater import WeightUpdater

    for name in UPDATES:
        original = getattr(WeightUpdater, name)
        if getattr(original, "_recomputes", False):
            return
        setattr(WeightUpdater, name, _marked(_followed(original, recompute), "_recomputes"))


def _followed(original, recompute):
    @functools.wraps(original)
    def update(self, *args, **keywords):
        try:
            return original(self, *args, **keywords)
        finally:
            recompute(self.get_model())  # a failed one may have copied, too

    return update


def _marked(function: Any, name: str) -> Any:
    """``function`` with an attribute by which a second call knows that it is in place."""
    setattr(function, name, True)
    return function
