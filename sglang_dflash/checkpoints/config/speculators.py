"""Drafts in the layout of vLLM's speculators library, rewritten as z-lab's.

Its ``config.json`` nests the layers under ``transformer_layer_config``, counts captured layers from the
embedding (its id n is the output after n layers), and may keep a head over a reduced vocabulary.
"""

from collections.abc import Mapping
from typing import Any

from sglang_dflash.checkpoints.config.fields import integers, nested
from sglang_dflash.errors import DFlashError

_ARCHITECTURES = {"dflash": "DFlashDraftModel", "dflash2": "DFlash2DraftModel"}
_OWN_KEYS = (
    "block_size",
    "mask_token_id",
    "sample_from_anchor",
    "conv_kernel_size",
    "conv_group_size",
    "selector_rank",
    "selector_top_k",
    "input_embedding_scale",
    "output_multiplier",
    "final_logit_softcapping",
)
_LAYER_KEYS = ("layer_types", "sliding_window", "use_sliding_window", "max_window_layers", "quantization_config")
_DEFAULTED = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "rms_norm_eps",
    "max_position_embeddings",
    "attention_bias",
    "layer_types",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
)
_UNKNOWN_PARTS = (
    "dflash_context_residual",
    "dflash_block_position_embedding",
    "dflash_gated_layer_fusion",
    "dflash2_dynamic_conv",
    "dflash2_candidate_selector",
)


def is_speculators(raw: Mapping[str, Any]) -> bool:
    """True for that layout; newer exports carry z-lab's fields besides and are read by those."""
    return "dflash_config" not in raw and ("transformer_layer_config" in raw or "speculators_model_type" in raw)


def keeps_own_ends(raw: Mapping[str, Any]) -> bool:
    """True for a checkpoint of that library, whichever layout: it ships embedding and head."""
    return "speculators_model_type" in raw


def from_speculators(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The same draft's ``config.json`` in z-lab's layout.

    Raises:
        DFlashError: another algorithm than DFlash, a part that is not known, or a field that is missing.
    """
    kind = raw.get("speculators_model_type")
    if kind not in _ARCHITECTURES:
        known = " or ".join(_ARCHITECTURES)
        raise DFlashError("draft speculators_model_type", f"is {kind!r}", f"use a draft of type {known}")
    for key in _UNKNOWN_PARTS:
        if raw.get(key):
            raise DFlashError(f"draft {key}", "is not supported", "use a draft without it")
    layers = _layer_fields(nested(raw, "transformer_layer_config"))
    _check_feature_size(raw.get("target_hidden_size"), layers.get("hidden_size"))
    layers |= {key: raw[key] for key in _LAYER_KEYS if raw.get(key) is not None}
    own = {key: raw[key] for key in _OWN_KEYS if raw.get(key) is not None}
    own["target_layer_ids"] = _layer_outputs(raw.get("aux_hidden_state_layer_ids"))
    if raw.get("sliding_window_non_causal"):
        own["causal"] = False
    return layers | {
        "architectures": [_ARCHITECTURES[kind]],
        # Its layers are Qwen3's whatever the config they were described with.
        "model_type": "qwen3",
        "speculators_model_type": kind,
        "draft_vocab_size": raw.get("draft_vocab_size"),
        "dtype": raw.get("dtype") or raw.get("torch_dtype") or layers.get("dtype"),
        "dflash_config": own,
    }


def _layer_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """All fields of the layers: the library saves only what differs from its config class's defaults."""
    from transformers import AutoConfig

    fields = {key: value for key, value in given.items() if key not in ("model_type", "architectures")}
    try:
        defaults = AutoConfig.for_model(given.get("model_type", "qwen3"), **fields).to_dict()
    except ValueError:
        defaults = {}  # a class that is not known here; what it leaves out is then missed by name
    rope = any(key.startswith("rope") for key in fields)
    wanted = _DEFAULTED if rope else (*_DEFAULTED, "rope_parameters")
    return {key: defaults[key] for key in wanted if defaults.get(key) is not None} | fields


def _layer_outputs(ids: Any) -> list[int]:
    numbered = integers("aux_hidden_state_layer_ids", ids)
    if min(numbered) < 1:
        raise DFlashError(
            "draft aux_hidden_state_layer_ids",
            f"hold {min(numbered)}: the embedding is not captured",
            "use a draft of layer outputs, ids from 1",
        )
    return [i - 1 for i in numbered]


def _check_feature_size(given: int | None, hidden_size: int | None) -> None:
    if given is not None and given != hidden_size:
        raise DFlashError(
            "draft target_hidden_size",
            f"is {given}, the draft's hidden_size {hidden_size}",
            "use a draft of equal width",
        )
