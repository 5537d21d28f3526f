"""A draft checkpoint's ``config.json`` as one frozen value; reads json only, no model library."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglang_dflash.errors import DFlashError

DEFAULT_BLOCK_SIZE = 16
DEFAULT_MASK_TOKEN = "<|MASK|>"
MASK_EMBEDDING_FILE = "mask_embedding.pt"

_PLAIN_ARCHITECTURE = "DFlashDraftModel"
_OTHER_ARCHITECTURES = {
    "DFlash2DraftModel": "DFlash 2 (selector)",
    "DFlash2BeamDraftModel": "DFlash 2 (beam selector)",
    "MiniMaxDFlash2DraftModel": "DFlash 2 (selector)",
    "DFlashLagunaForCausalLM": "Laguna (attention gates)",
    "MuseGlimmerAssistantModel": "Muse assistant",
    "LiLiCorrDraftModel": "LiLiCorr",
}
# Rope keys that a draft copies from its target but that mean nothing for its one-dimensional positions.
_FOREIGN_ROPE_KEYS = frozenset(
    {"rope_theta", "rope_dim", "partial_rotary_factor", "mrope_section", "mrope_interleaved", "type"}
)
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_FIX = "fix the draft's config.json"


@dataclass(frozen=True)
class LayerAttention:
    """What one draft layer may see besides the injected context."""

    window: int | None  # tokens in sight, the query's own included; None: no limit
    causal: bool  # inside the block; False: the block attends to itself in both directions


@dataclass(frozen=True)
class DraftConfig:
    """All that the draft model, the checks and the worker take from a draft's ``config.json``.

    ``target_layer_ids`` are 0-based: id i is the output of the target's layer i. None means that the
    checkpoint leaves them to the spacing rule of ``layer_ids_for``.
    """

    architecture: str
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    rms_norm_eps: float
    max_position_embeddings: int
    attention_bias: bool
    rope_theta: float
    rope_scaling: Mapping[str, Any] | None  # rope_type and its parameters; None: no scaling
    layers: tuple[LayerAttention, ...]
    block_size: int  # trained block, anchor included
    mask_token: str
    mask_token_id: int | None
    target_layer_ids: tuple[int, ...] | None
    num_target_layers: int | None
    vocab_size: int | None
    final_logit_softcapping: float | None
    output_multiplier: float
    has_qk_norm: bool
    unsupported_variant: str | None  # name of a draft variant that our draft model does not implement

    @property
    def num_context_features(self) -> int:
        """How many target layers are fused into one context feature (the K of arXiv 2602.06036)."""
        return self.num_layers if self.target_layer_ids is None else len(self.target_layer_ids)

    @property
    def largest_window(self) -> int | None:
        """Widest window of the sliding layers, None where no layer slides."""
        return max((layer.window for layer in self.layers if layer.window is not None), default=None)

    def layer_ids_for(self, num_target_layers: int) -> tuple[int, ...]:
        """Target layers to capture: those of the checkpoint, else ``spaced_layer_ids``."""
        if self.target_layer_ids is not None:
            return self.target_layer_ids
        return spaced_layer_ids(num_target_layers, self.num_layers)


def spaced_layer_ids(num_target_layers: int, count: int) -> tuple[int, ...]:
    """``count`` ids, evenly spaced from the second layer to the third last (arXiv 2602.06036, section 4).

    Raises:
        DFlashError: the target is too shallow for the rule.
    """
    if count == 1:
        return (num_target_layers // 2,)
    first, last = 1, num_target_layers - 3
    if last < first:
        raise DFlashError(
            "draft target_layer_ids",
            f"are not given and cannot be spaced over {num_target_layers} target layers",
            "name them in the draft's config.json",
        )
    return tuple(round(first + (last - first) * i / (count - 1)) for i in range(count))


def load_draft_config(
    source: str | Path | Mapping[str, Any], revision: str | None = None
) -> DraftConfig | None:
    """The config of a draft given as a dict, a folder or a Hugging Face id.

    None where an id's config.json is not on this machine: it is fetched later, and checked then.

    Raises:
        DFlashError: no or unreadable config.json in a folder, or a field that ``parse_draft_config`` refuses.
    """
    if isinstance(source, Mapping):
        return parse_draft_config(source)
    folder = local_folder(source, revision, "--speculative-draft-model-path")
    if folder is None:
        return None
    return parse_draft_config(read_json(folder / "config.json", "--speculative-draft-model-path"))


def mask_embedding_file(source: str | Path, revision: str | None = None) -> Path | None:
    """The trained mask embedding published beside some drafts, None where there is none.

    A ``torch.save`` of ``{"embedding": [hidden], "mask_token_id": int}``.
    """
    folder = local_folder(source, revision)
    path = None if folder is None else folder / MASK_EMBEDDING_FILE
    return path if path is not None and path.is_file() else None


def local_folder(source: str | Path, revision: str | None = None, field: str = "--model-path") -> Path | None:
    """A model's folder on this machine: the path, or the hub cache's snapshot; None if there is none.

    Raises:
        DFlashError: naming ``field``, where ``source`` is neither a folder nor a Hugging Face id.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if "://" in str(source):
        return None
    if not _HUB_ID.fullmatch(str(source)):
        raise DFlashError(field, f"{source} is no folder", "give a folder or a Hugging Face id")
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(str(source), "config.json", revision=revision)
    return Path(cached).parent if isinstance(cached, str) else None


def read_json(path: Path, field: str) -> dict[str, Any]:
    """The object in a json file; DFlashError naming ``field`` where there is none."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise DFlashError(
            field, f"has no {path.name} in {path.parent}", "point it to a checkpoint folder"
        ) from None
    except ValueError as error:
        raise DFlashError(field, f"{path} is not valid json: {error}", "restore the file") from None
    if not isinstance(value, dict):
        raise DFlashError(field, f"{path} does not hold an object", "restore the file")
    return value


def parse_draft_config(raw: Mapping[str, Any]) -> DraftConfig:
    """Parse a ``config.json``; DFlash's own fields stand in ``dflash_config``, else at the top level.

    Raises:
        DFlashError: a field is missing, of the wrong type or out of its range, by name.
    """
    if "transformer_layer_config" in raw or "speculators_model_type" in raw:
        raise DFlashError(
            "draft config.json", "is in vLLM's speculators format", "use a checkpoint in z-lab's format"
        )
    own, text = _nested(raw, "dflash_config"), _nested(raw, "text_config") or raw
    heads = _integer(text, "num_attention_heads")
    hidden_size = _integer(text, "hidden_size")
    num_layers = _integer(text, "num_hidden_layers")
    # transformers' Qwen3Config has this default whatever the hidden size is.
    default_head_dim = 128 if _is_qwen3(text) else hidden_size // heads
    theta, scaling = _rope(text)
    layer_ids = _first(own, raw, "target_layer_ids")
    return DraftConfig(
        architecture=_architecture(raw),
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=heads,
        num_kv_heads=_integer(text, "num_key_value_heads", default=heads),
        head_dim=_integer(text, "head_dim", default=default_head_dim),
        intermediate_size=_integer(text, "intermediate_size"),
        rms_norm_eps=_number(text, "rms_norm_eps", 1e-6),
        max_position_embeddings=_integer(text, "max_position_embeddings", default=32768),
        attention_bias=bool(text.get("attention_bias", False)),
        rope_theta=theta,
        rope_scaling=scaling,
        layers=_layers(raw, text, num_layers),
        block_size=_block_size(own, raw),
        mask_token=_mask_token(own, raw),
        mask_token_id=_mask_token_id(own, raw),
        target_layer_ids=None if layer_ids is None else _layer_ids(layer_ids),
        num_target_layers=_optional_integer(own, raw, "num_target_layers"),
        vocab_size=_integer(text, "vocab_size", default=0) or None,
        final_logit_softcapping=float(_first(own, raw, "final_logit_softcapping") or 0.0) or None,
        output_multiplier=_own_number(own, raw, "output_multiplier", 1.0),
        has_qk_norm=bool(text.get("use_qk_norm", True)),
        unsupported_variant=_unsupported_variant(raw, own, text),
    )


def _nested(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = raw.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise DFlashError(f"draft {key}", f"is {value!r}, not an object", _FIX)
    return value


def _first(own: Mapping[str, Any], raw: Mapping[str, Any], key: str) -> Any:
    value = own.get(key)
    return raw.get(key) if value is None else value


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _integer(values: Mapping[str, Any], key: str, default: int | None = None, minimum: int = 1) -> int:
    value = values.get(key)
    if value is None:
        if default is None:
            raise DFlashError(f"draft {key}", "is missing", _FIX)
        return default
    if not _is_integer(value) or value < minimum:
        raise DFlashError(f"draft {key}", f"is {value!r}, not an integer of at least {minimum}", _FIX)
    return value


def _optional_integer(own: Mapping[str, Any], raw: Mapping[str, Any], key: str) -> int | None:
    value = _first(own, raw, key)
    return None if value is None else _integer({key: value}, key)


def _number(values: Mapping[str, Any], key: str, default: float) -> float:
    value = values.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise DFlashError(f"draft {key}", f"is {value!r}, not a positive number", _FIX)
    return float(value)


def _own_number(own: Mapping[str, Any], raw: Mapping[str, Any], key: str, default: float) -> float:
    return _number({key: _first(own, raw, key)}, key, default)


def _block_size(own: Mapping[str, Any], raw: Mapping[str, Any]) -> int:
    value = _first(own, raw, "block_size")
    return DEFAULT_BLOCK_SIZE if value is None else _integer({"block_size": value}, "block_size", minimum=2)


def _mask_token(own: Mapping[str, Any], raw: Mapping[str, Any]) -> str:
    value = _first(own, raw, "mask_token")
    if value is None:
        return DEFAULT_MASK_TOKEN
    if not isinstance(value, str) or not value:
        raise DFlashError("draft mask_token", f"is {value!r}, not a piece of text", _FIX)
    return value


def _mask_token_id(own: Mapping[str, Any], raw: Mapping[str, Any]) -> int | None:
    value = _first(own, raw, "mask_token_id")
    return None if value is None else _integer({"mask_token_id": value}, "mask_token_id", minimum=0)


def _layer_ids(value: Any) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)) or not value or not all(_is_integer(i) for i in value):
        raise DFlashError("draft target_layer_ids", f"are {value!r}, not a list of integers", _FIX)
    return tuple(value)


def _is_qwen3(text: Mapping[str, Any]) -> bool:
    return text.get("model_type") == "qwen3"


def _rope(text: Mapping[str, Any]) -> tuple[float, dict[str, Any] | None]:
    """(theta, scaling) in either spelling: ``rope_parameters``, or ``rope_theta`` beside ``rope_scaling``."""
    parameters = _nested(text, "rope_parameters") or _nested(text, "rope_scaling")
    theta = _own_number(parameters, text, "rope_theta", 10000.0)
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind in (None, "default"):
        return theta, None
    scaling = {key: value for key, value in parameters.items() if key not in _FOREIGN_ROPE_KEYS}
    return theta, {**scaling, "rope_type": kind}


def _layers(raw: Mapping[str, Any], text: Mapping[str, Any], num_layers: int) -> tuple[LayerAttention, ...]:
    types = text.get("layer_types", raw.get("layer_types"))
    window = text.get("sliding_window", raw.get("sliding_window"))
    if _is_qwen3(text) and not text.get("use_sliding_window", False):
        window = None  # transformers drops the window then, and SGLang never sees it
    if types is None:
        first = text.get("max_window_layers", 28) if _is_qwen3(text) and window is not None else num_layers
        types = ["full_attention" if i < first else "sliding_attention" for i in range(num_layers)]
    if not isinstance(types, (list, tuple)) or len(types) != num_layers:
        raise DFlashError(
            "draft layer_types", f"is {types!r}, not one type for each of {num_layers} layers", _FIX
        )
    causal = text.get("is_causal", raw.get("is_causal"))
    return tuple(_layer(kind, window, causal) for kind in types)


def _layer(kind: Any, window: Any, causal: bool | None) -> LayerAttention:
    if kind == "full_attention":
        return LayerAttention(window=None, causal=bool(causal))
    if kind != "sliding_attention":
        raise DFlashError("draft layer_types", f"holds {kind!r}", "use full_attention or sliding_attention")
    if window is None:
        raise DFlashError(
            "draft sliding_window", "is missing or off, but layers slide", "set it and use_sliding_window"
        )
    window = _integer({"sliding_window": window}, "sliding_window", minimum=2)
    # A sliding layer is causal unless the checkpoint says otherwise, as DFlash drafts are trained.
    return LayerAttention(window=window, causal=True if causal is None else bool(causal))


def _architecture(raw: Mapping[str, Any]) -> str:
    names = raw.get("architectures") or [""]
    if names[0] != _PLAIN_ARCHITECTURE and names[0] not in _OTHER_ARCHITECTURES:
        known = ", ".join((_PLAIN_ARCHITECTURE, *_OTHER_ARCHITECTURES))
        raise DFlashError("draft architectures", f"is {names!r}, not a DFlash draft", f"one of {known}")
    return names[0]


def _unsupported_variant(
    raw: Mapping[str, Any], own: Mapping[str, Any], text: Mapping[str, Any]
) -> str | None:
    architecture = _architecture(raw)
    if architecture in _OTHER_ARCHITECTURES:
        return _OTHER_ARCHITECTURES[architecture]
    rope = _nested(text, "rope_parameters") or _nested(text, "rope_scaling")
    projector = _first(own, raw, "projector_type")
    marks = (
        ("Domino" if projector == "domino" else f"projector {projector}", projector is not None),
        ("DFlash 2 (selector)", own.get("selector_rank")),
        ("DFlash 2 (convolution)", own.get("conv_kernel_size")),
        ("LiLiCorr", own.get("lilicorr_enabled", any(key.startswith("lilicorr_") for key in own))),
        ("attention sinks", _first(own, raw, "attention_sink_bias")),
        ("attention value scale", _first(own, raw, "attention_value_scale")),
        ("query without anchor", _first(own, raw, "sample_from_anchor") is False),
        ("quantised weights", raw.get("quantization_config")),
        ("Gemma norms", text.get("use_gemma_norm")),
        ("no query and key norm", text.get("use_qk_norm") is False),
        (f"activation {text.get('hidden_act')}", text.get("hidden_act", "silu") != "silu"),
        (
            "interleaved rotary embedding",
            False in (text.get("rope_is_neox_style"), text.get("is_neox_style")),
        ),
        ("partial rotary embedding", _is_partial(text, rope)),
    )
    return next((name for name, present in marks if present), None)


def _is_partial(text: Mapping[str, Any], rope: Mapping[str, Any]) -> bool:
    if "rope_dim" in rope:
        return rope["rope_dim"] != text.get("head_dim", rope["rope_dim"])
    return text.get("partial_rotary_factor", 1.0) != 1.0
