"""A draft that begins as layers of its target, for targets whose layers have Llama's parts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.train.draft_model import DraftNetwork

_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


@torch.no_grad()
def begin_as_target_layers(draft: DraftNetwork, weights: dict[str, Tensor], ids: Sequence[int], seed: int) -> None:
    """Copy target layer ``ids[i]`` into draft layer i, and let the last tap pass through the feature projection.

    Gains of the norms go into the matrices behind them, so that a layer reads block and context features alike.
    A target without norms of queries and keys gets gains of the usual length of those vectors.

    Raises:
        DFlashError: as many ids as layers are needed, and parts of the same shapes.
    """
    if len(ids) != len(draft.layers):
        raise DFlashError("start_layers", f"has {len(ids)} ids for {len(draft.layers)} layers", "give one id a layer")
    for layer, source in zip(draft.layers, ids, strict=True):
        parts = _parts(weights, source)
        before, between = parts["input_layernorm"], parts["post_attention_layernorm"]
        attention = layer.self_attn
        for name in _PROJECTIONS:
            gain = 1.0 if name == "o_proj" else before
            _copy(getattr(attention, name).weight, parts[f"self_attn.{name}"] * gain, source)
        for name, projection in (("q_norm", attention.q_proj), ("k_norm", attention.k_proj)):
            own = parts.get(f"self_attn.{name}")
            norm = getattr(attention, name).weight
            # Of a normed input, a row's output has about the row's own length.
            norm.copy_(own if own is not None else projection.weight.pow(2).sum(1).mean().sqrt().expand_as(norm))
        for name in ("gate_proj", "up_proj"):
            _copy(getattr(layer.mlp, name).weight, parts[f"mlp.{name}"] * between, source)
        _copy(layer.mlp.down_proj.weight, parts["mlp.down_proj"], source)
    hidden = draft.fc.weight.shape[0]
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(draft.fc.weight.shape, generator=generator) * 0.2 * draft.fc.weight.shape[1] ** -0.5
    start[:, -hidden:] += torch.eye(hidden)
    draft.fc.weight.copy_(start)


def _parts(weights: dict[str, Tensor], layer: int) -> dict[str, Tensor]:
    mark = f"layers.{layer}."
    parts = {name.split(mark)[1].removesuffix(".weight"): w.float() for name, w in weights.items() if mark in name}
    needed = {f"self_attn.{name}" for name in _PROJECTIONS} | {"input_layernorm", "post_attention_layernorm"}
    missing = sorted((needed | {f"mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")}) - set(parts))
    if missing:
        raise DFlashError("start_layers", f"target layer {layer} has no {missing[0]}", "begin with random layers")
    return parts


def _copy(into: Tensor, values: Tensor, layer: int) -> None:
    if into.shape != values.shape:
        raise DFlashError("start_layers", f"target layer {layer} has other sizes", "begin with random layers")
    into.copy_(values)
