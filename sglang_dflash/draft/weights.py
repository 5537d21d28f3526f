"""Strict loading of a draft checkpoint into the model's fused parameters."""

from collections.abc import Iterable

import torch
from torch import nn

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
# Published exports carry these beside the draft's own weights; embedding and head are the target's.
_IGNORED = ("embed_tokens.", "lm_head.", "rotary_emb.")


def load_strictly(model: nn.Module, weights: Iterable[tuple[str, torch.Tensor]], *, complete: bool) -> None:
    """Load every tensor of ``weights``; with ``complete``, require that each parameter was given.

    Raises:
        DFlashError: an unknown tensor, a wrong shape, or (``complete``) a missing tensor, by name.
    """
    parameters = dict(model.named_parameters())
    given: set[tuple[str, object]] = set()
    for name, tensor in weights:
        bare = name.removeprefix("model.")
        if any(part in bare for part in _IGNORED):
            continue
        target, shard = _resolve(bare)
        parameter = parameters.get(target)
        if parameter is None:
            raise DFlashError(f"draft tensor {name}", "is not part of this architecture", "check the draft's config.json")
        _load(parameter, tensor, shard, name)
        given.add((target, shard))
    if complete:
        missing = sorted(_name(*want) for want in _expected(parameters) - given)
        if missing:
            raise DFlashError("draft checkpoint", f"lacks {', '.join(missing)}", "use the complete checkpoint")


def _resolve(name: str) -> tuple[str, object]:
    for projection, (fused, shard) in _FUSED.items():
        if f".{projection}." in name:
            return name.replace(projection, fused), shard
    return name, None


def _expected(parameters: dict[str, nn.Parameter]) -> set[tuple[str, object]]:
    shards: dict[str, list[object]] = {}
    for fused, shard in _FUSED.values():
        shards.setdefault(fused, []).append(shard)
    return {
        (name, shard)
        for name in parameters
        for shard in next((s for fused, s in shards.items() if f".{fused}." in name), [None])
    }


def _name(parameter: str, shard: object) -> str:
    for projection, (fused, of) in _FUSED.items():
        if of == shard and f".{fused}." in parameter:
            return parameter.replace(fused, projection)
    return parameter


def _load(parameter: nn.Parameter, tensor: torch.Tensor, shard: object, name: str) -> None:
    loader = getattr(parameter, "weight_loader", default_weight_loader)
    try:
        loader(parameter, tensor) if shard is None else loader(parameter, tensor, shard)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise DFlashError(
            f"draft tensor {name}",
            f"shape {tuple(tensor.shape)} does not fit: {error}",
            "check the draft's config.json against its weights",
        ) from error
