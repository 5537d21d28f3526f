"""Strict loading of a draft checkpoint into the model's fused parameters."""

from collections.abc import Iterable

import torch
from torch import nn

from sglang_dflash.checks.tensors import bare_name, expected_tensors
from sglang_dflash.config import DraftConfig
from sglang_dflash.errors import DFlashError
from sglang_dflash.host.model_api import default_weight_loader

# Checkpoint projection -> (parameter it is fused into, shard of it).
_FUSED = {
    "q_proj": ("qkv_proj", "q"),
    "k_proj": ("qkv_proj", "k"),
    "v_proj": ("qkv_proj", "v"),
    "gate_proj": ("gate_up_proj", 0),
    "up_proj": ("gate_up_proj", 1),
}


def load_strictly(
    model: nn.Module, config: DraftConfig, weights: Iterable[tuple[str, torch.Tensor]], *, complete: bool
) -> None:
    """Load every tensor of ``weights``; with ``complete``, require that each one of the architecture is given.

    Raises:
        DFlashError: an unknown tensor, a wrong shape, or (``complete``) a missing tensor, by name.
    """
    parameters = dict(model.named_parameters())
    missing = expected_tensors(config)
    known = set(missing)
    for name, tensor in weights:
        bare = bare_name(name)
        if bare is None:
            continue
        if bare not in known:
            raise DFlashError(
                f"draft tensor {name}", "is unknown to this architecture", "check the draft's config.json"
            )
        _load(parameters, bare, tensor)
        missing.pop(bare, None)
    if complete and missing:
        raise DFlashError(
            "draft checkpoint", f"lacks {', '.join(sorted(missing))}", "use the complete checkpoint"
        )


def _load(parameters: dict[str, nn.Parameter], name: str, tensor: torch.Tensor) -> None:
    for projection, (fused, shard) in _FUSED.items():
        if f".{projection}." in name:
            parameter, arguments = parameters[name.replace(projection, fused)], (shard,)
            break
    else:
        parameter, arguments = parameters[name], ()
    try:
        getattr(parameter, "weight_loader", default_weight_loader)(parameter, tensor, *arguments)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise DFlashError(
            f"draft tensor {name}",
            f"shape {tuple(tensor.shape)} does not fit: {error}",
            "check the draft's config.json against its weights",
        ) from error
