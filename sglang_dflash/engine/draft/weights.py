"""Strict loading of a draft checkpoint into the model's fused parameters."""

from collections.abc import Iterable

import torch
from torch import nn

from sglang_dflash.checkpoints.checks.names import FUSED, TensorNames
from sglang_dflash.checkpoints.config import DraftConfig
from sglang_dflash.errors import DFlashError
from sglang_dflash.host.model_api import default_weight_loader

# SGLang's loaders name the parts of a fused projection like this.
_SHARDS = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "gate_proj": 0, "up_proj": 1}
_FUSED_INTO = {part: fused for fused, parts in FUSED.items() for part in parts}


def load_strictly(
    model: nn.Module, config: DraftConfig, weights: Iterable[tuple[str, torch.Tensor]], *, complete: bool
) -> set[str]:
    """Load every tensor of ``weights``; with ``complete``, require that each one of the architecture is given.

    Returns the names that were filled. A parameter that the model has given up is passed over.

    Raises:
        DFlashError: an unknown tensor, a wrong shape, or (``complete``) a missing tensor, by name.
    """
    parameters = dict(model.named_parameters()) | dict(model.named_buffers())
    names, filled = TensorNames(config), set()
    for name, tensor in weights:
        bare = names.bare(name)
        if bare is None:
            continue
        covered = names.covers(bare)
        if not covered:
            raise DFlashError(
                f"draft tensor {name}", "is unknown to this architecture", "check the draft's config.json"
            )
        if config.quantisation is None:
            _check_shape(name, tensor, names.shape(bare))
        _load(parameters, bare, tensor, given_up=covered[0] in names.ends)
        filled.update(covered)
    missing = sorted(set(names.required) - filled)
    if complete and missing:
        raise DFlashError("draft checkpoint", f"lacks {', '.join(missing)}", "use the complete checkpoint")
    return filled


def _check_shape(name: str, tensor: torch.Tensor, shape: tuple[int, ...]) -> None:
    """SGLang's loaders of split parameters would take the front of a tensor that is too long."""
    if tuple(tensor.shape) != shape:
        raise DFlashError(
            f"draft tensor {name}",
            f"shape {tuple(tensor.shape)} does not fit: the config asks for {shape}",
            "check the draft's config.json against its weights",
        )


def _load(parameters: dict[str, torch.Tensor], name: str, tensor: torch.Tensor, *, given_up: bool) -> None:
    target, shard = _target(name)
    parameter = parameters.get(target)
    if parameter is None and given_up:
        return
    if parameter is None:
        raise DFlashError(f"draft tensor {name}", "is not what its quantisation asks for", "check quantization_config")
    try:
        getattr(parameter, "weight_loader", default_weight_loader)(parameter, tensor, *shard)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise DFlashError(
            f"draft tensor {name}",
            f"shape {tuple(tensor.shape)} does not fit: {error}",
            "check quantization_config against the weights",
        ) from error


def _target(name: str) -> tuple[str, tuple]:
    """Parameter that takes a tensor, and which shard of it."""
    for part, fused in _FUSED_INTO.items():
        if f".{part}." in name:
            return name.replace(part, fused), (_SHARDS[part],)
    return name, ()
