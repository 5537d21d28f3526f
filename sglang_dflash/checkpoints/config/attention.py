"""What each draft layer may see, and how it turns positions into rotations."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sglang_dflash.checkpoints.config.fields import FIX, Fields, nested, optional_integer, positive
from sglang_dflash.errors import DFlashError

_FULL, _SLIDING = "full_attention", "sliding_attention"
# Rope keys that a draft copies from its target but that mean nothing for its one-dimensional positions.
_FOREIGN_ROPE_KEYS = frozenset(
    {"rope_theta", "rope_dim", "partial_rotary_factor", "mrope_section", "mrope_interleaved", "type"}
)


@dataclass(frozen=True)
class LayerAttention:
    """What one draft layer may see besides the injected context."""

    window: int | None  # tokens in sight, the query's own included; None: no limit
    causal: bool  # inside the block; False: the block attends to itself in both directions


@dataclass(frozen=True)
class Rope:
    """Rotary embedding of queries and keys."""

    theta: float
    scaling: Mapping[str, Any] | None  # rope_type and its parameters; None: no scaling
    rotary_dim: int  # channels of a head that rotate, the first ones
    interleaved: bool  # rotary pairs are neighbours instead of half a head apart


def is_qwen3(text: Mapping[str, Any]) -> bool:
    """True where transformers reads the layers as Qwen3's, with its defaults."""
    return text.get("model_type") == "qwen3"


def parse_rope(fields: Fields, head_dim: int, types: set[str]) -> Rope:
    """The draft's rope in either spelling: ``rope_parameters``, or ``rope_theta`` beside ``rope_scaling``.

    ``types`` are the kinds of the layers: some targets' configs keep parameters per kind.
    """
    text = fields.text
    parameters = _of_one_kind(nested(text, "rope_parameters") or nested(text, "rope_scaling"), types)
    theta = parameters.get("rope_theta")
    theta = positive("rope_theta", text.get("rope_theta") if theta is None else theta, 10000.0)
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    scaling = {key: value for key, value in parameters.items() if key not in _FOREIGN_ROPE_KEYS}
    return Rope(
        theta=theta,
        scaling=None if kind in (None, "default") else scaling | {"rope_type": kind},
        rotary_dim=_rotary_dim(parameters, text, head_dim),
        interleaved=False in (text.get("rope_is_neox_style"), text.get("is_neox_style")),
    )


def _of_one_kind(parameters: Mapping[str, Any], types: set[str]) -> Mapping[str, Any]:
    per_kind = [parameters[kind] for kind in sorted(types) if isinstance(parameters.get(kind), Mapping)]
    if not per_kind:
        return parameters
    if any(one != per_kind[0] for one in per_kind):
        raise DFlashError("draft rope_parameters", "differ between kinds of layers", "use a draft with one rope")
    return per_kind[0]


def _rotary_dim(parameters: Mapping[str, Any], text: Mapping[str, Any], head_dim: int) -> int:
    """``rope_dim`` is the trained width; a factor inside ``parameters`` is the target's and was never trained."""
    explicit = optional_integer("rope_dim", parameters.get("rope_dim"), 2)
    factor = positive("partial_rotary_factor", text.get("partial_rotary_factor"), 1.0)
    rotary_dim = explicit if explicit is not None else int(head_dim * factor)
    if rotary_dim > head_dim or (rotary_dim < head_dim and rotary_dim % 2):
        raise DFlashError(
            "draft partial_rotary_factor",
            f"rotates {rotary_dim} of {head_dim} channels",
            "use an even number of at most head_dim",
        )
    return rotary_dim


def parse_layers(fields: Fields, num_layers: int, *, causal_windows: bool) -> tuple[LayerAttention, ...]:
    """Kind of every layer; ``causal_windows``: whether sliding layers are causal where nothing says so."""
    types, window = _types(fields, num_layers), _window(fields)
    if fields.flag("use_swa") and _SLIDING not in types:
        # All layers slide then, and such drafts are trained in both directions.
        types, causal_windows = [_SLIDING] * num_layers, False
    causal = _causal(fields)
    return tuple(_layer(kind, window, causal, causal_windows) for kind in types)


def _types(fields: Fields, num_layers: int) -> list[str]:
    text, raw = fields.text, fields.raw
    types = text.get("layer_types", raw.get("layer_types"))
    if types is None:
        slides = is_qwen3(text) and text.get("use_sliding_window", False) and text.get("sliding_window") is not None
        first = text.get("max_window_layers", 28) if slides else num_layers
        types = [_FULL if i < first else _SLIDING for i in range(num_layers)]
    if not isinstance(types, (list, tuple)) or len(types) != num_layers:
        raise DFlashError("draft layer_types", f"is {types!r}, not one type for each of {num_layers} layers", FIX)
    return list(types)


def _window(fields: Fields) -> Any:
    own = fields.first("swa_window_size")
    if own is not None:
        return own
    if is_qwen3(fields.text) and not fields.text.get("use_sliding_window", False):
        return None  # transformers drops the window then, and SGLang never sees it
    return fields.text.get("sliding_window", fields.raw.get("sliding_window"))


def _causal(fields: Fields) -> bool | None:
    """Direction of all layers, in the spellings of z-lab, vLLM and NVIDIA; None: each kind's own."""
    for value in (
        fields.text.get("is_causal"),
        fields.raw.get("is_causal"),
        fields.own.get("causal"),
        fields.raw.get("dflash_query_causal"),
    ):
        if value is not None:
            return bool(value)
    return None


def _layer(kind: Any, window: Any, causal: bool | None, causal_windows: bool) -> LayerAttention:
    if kind == _FULL:
        return LayerAttention(window=None, causal=bool(causal))
    if kind != _SLIDING:
        raise DFlashError("draft layer_types", f"holds {kind!r}", "use full_attention or sliding_attention")
    if window is None:
        raise DFlashError(
            "draft sliding_window", "is missing or off, but layers slide", "set it and use_sliding_window"
        )
    window = optional_integer("sliding_window", window, 2)
    return LayerAttention(window=window, causal=causal_windows if causal is None else causal)
