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


def load_strictly(model: nn.Module, config: DraftConfig, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
    """Load every tensor of a checkpoint, as it is read; each one of the architecture has to be given.

    Returns the names that were filled.

    Raises:
        DFlashError: an unknown tensor, a wrong shape, or a missing tensor, by name.
    """
    parameters = _places(model)
    names = TensorNames(config)
    filled: set[str] = set()
    for name, tensor in weights:
        bare, covered = _known(names, config, name, tensor)
        if covered:
            _load(parameters, bare, tensor)
            filled.update(covered)
    _require(set(names.required), filled)
    return filled


def update_strictly(model, weights: Iterable[tuple[str, torch.Tensor]], *, complete: bool) -> None:
    """Load tensors into a served draft, after all of them were checked; with ``complete``, each has to be given.

    A tensor whose place the target's has taken (``shared_ends``) is only compared with it.

    Raises:
        DFlashError: an unknown tensor, a wrong shape, one that is nowhere read, or a missing tensor, by name.
    """
    config, parameters = model.draft_config, _places(model)
    names, accepted = TensorNames(config), []
    filled: set[str] = set()
    for name, tensor in weights:
        bare, covered = _known(names, config, name, tensor)
        filled.update(covered)
        if bare in model.shared_ends:
            _check_shared(name, tensor, model.shared_ends[bare])
        elif covered:
            if covered[0] in names.ends and _target(bare)[0] not in parameters:
                remedy = "start the server from a draft that has it"
                raise DFlashError(f"draft tensor {name}", "was not in the draft that was loaded at the start", remedy)
            accepted.append((bare, tensor))
    if complete:
        _require(set(names.required) | set(names.optional) & (parameters.keys() | model.shared_ends.keys()), filled)
    for bare, tensor in accepted:
        _load(parameters, bare, tensor)


def _places(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


def _known(names: TensorNames, config: DraftConfig, name: str, tensor: torch.Tensor) -> tuple[str, tuple[str, ...]]:
    """A tensor's name in the model and the names that it fills, none where it is to be passed over."""
    bare = names.bare(name)
    if bare is None:
        return name, ()
    covered = names.covers(bare)
    if not covered:
        raise DFlashError(f"draft tensor {name}", "is unknown to this architecture", "check the draft's config.json")
    if config.quantisation is None:
        _check_shape(name, tensor, names.shape(bare))
    return bare, covered


def _require(wanted: set[str], filled: set[str]) -> None:
    missing = sorted(wanted - filled)
    if missing:
        raise DFlashError("draft checkpoint", f"lacks {', '.join(missing)}", "use the complete checkpoint")


def _check_shared(name: str, tensor: torch.Tensor, shared) -> None:
    """``shared`` holds the target's table, or this rank's part of it."""
    shard = getattr(shared, "shard_indices", None)
    start = 0 if shard is None else int(shard.org_vocab_start_index)
    rows = len(tensor) if shard is None else int(shard.num_org_elements)
    own = tensor[start : start + rows].to(shared.weight)
    if not torch.equal(own, shared.weight[:rows]):
        raise DFlashError(
            f"draft tensor {name}",
            "differs from the target's, which the draft has shared since they were equal at the start",
            "start the server with SGLANG_DFLASH_SHARE_ENDS=off to give the draft one of its own",
        )


def _check_shape(name: str, tensor: torch.Tensor, shape: tuple[int, ...] | None) -> None:
    """SGLang's loaders of split parameters would take the front of a tensor that is too long."""
    if tuple(tensor.shape) != shape:
        raise DFlashError(
            f"draft tensor {name}",
            f"shape {tuple(tensor.shape)} does not fit: the config asks for {shape}",
            "check the draft's config.json against its weights",
        )


def _load(parameters: dict[str, torch.Tensor], name: str, tensor: torch.Tensor) -> None:
    target, shard = _target(name)
    parameter = parameters.get(target)
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
