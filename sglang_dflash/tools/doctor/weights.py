"""Bytes of a checkpoint's weights: its files' where they are here, else an estimate from its config."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sglang_dflash.checkpoints.checks.serving import stored_dtype
from sglang_dflash.checkpoints.checks.tensors import INDEX_FILE
from sglang_dflash.checkpoints.config import read_json
from sglang_dflash.tools.doctor.layers import FULL, NOTHING, SLIDING, STATE, is_latent, layer_kinds

_DTYPE_BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0}
# Bits per weight of a quantisation, scales included; others are taken by their own number of bits.
_BITS = {"fp8": 8.0, "mxfp4": 4.25, "nvfp4": 4.5, "modelopt": 4.5, "modelopt_fp4": 4.5, "mxfp8": 8.25}


def stored_bytes(folder: Path) -> int | None:
    """Size of a folder's safetensors files, or what their index says; None where neither is complete."""
    index = folder / INDEX_FILE
    if index.is_file():
        raw = read_json(index, "checkpoint")
        names = set(raw.get("weight_map", {}).values())
        if names and all((folder / name).is_file() for name in names):
            return sum((folder / name).stat().st_size for name in names)
        total = (raw.get("metadata") or {}).get("total_size")
        return int(total) if total else None
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) or None


def estimated_bytes(config: Mapping[str, Any]) -> int:
    """Bytes of the language model, by the formats that the config names (bfloat16 where it names none)."""
    text = config.get("text_config") or config
    ends, attention, mlp = parameters(text)
    plain = _DTYPE_BYTES.get(stored_dtype(config) or "bfloat16", 2.0)
    quantised = _quantised_bytes(config.get("quantization_config") or text.get("quantization_config"))
    if quantised is None:
        return int((ends + attention + mlp) * plain)
    if _method(config.get("quantization_config") or text.get("quantization_config")) == "mxfp4":
        return int((ends + attention) * plain + mlp * quantised)  # of the experts alone
    return int(ends * plain + (attention + mlp) * quantised)


def parameters(text: Mapping[str, Any]) -> tuple[int, int, int]:
    """Parameters of embedding and head, of attention and state layers, of MLPs and experts."""
    hidden, kinds = text["hidden_size"], layer_kinds(text)
    ends = text.get("vocab_size", 0) * hidden * (1 if text.get("tie_word_embeddings") else 2)
    per_layer = text.get("hidden_size_per_layer_input") or 0  # Gemma's small models embed once more for every layer
    ends += text.get("vocab_size_per_layer_input", 0) * per_layer * len(kinds)
    named = text.get("layers_block_type") or [None] * len(kinds)
    attention = sum(_mixer(text, hidden, kind, i) for i, kind in enumerate(kinds))
    mlp = sum(_mlp(text, hidden, i, name) for i, name in enumerate(named) if _has_mlp(text, kinds[i]))
    return ends, attention, mlp


def _mixer(text: Mapping[str, Any], hidden: int, kind: str, layer: int) -> int:
    if kind == NOTHING:
        return 0
    if kind == STATE:
        return _state_mixer(text, hidden)
    heads = text["num_attention_heads"]
    if is_latent(text):
        inner = text.get("q_lora_rank") or 0
        width = heads * (text.get("qk_nope_head_dim", 0) + text.get("qk_rope_head_dim", 0))
        queries = hidden * inner + inner * width if inner else hidden * width
        latent, values = text["kv_lora_rank"], text.get("v_head_dim", 0)
        keys = hidden * (latent + text.get("qk_rope_head_dim", 0))
        return queries + keys + latent * heads * (text.get("qk_nope_head_dim", 0) + values) + heads * values * hidden
    own = (text.get("per_layer_config") or {}).get(f"{layer:02d}", {})
    head_dim = own.get("head_dim") or text.get("head_dim") or hidden // heads
    if kind == FULL and not own:
        head_dim = text.get("global_head_dim") or head_dim
    keys = text.get("num_key_value_heads") or heads
    if kind == FULL:
        keys = text.get("num_global_key_value_heads") or keys
    kept = 1 if kind == FULL and text.get("attention_k_eq_v") else 2
    gate = heads * head_dim if text.get("attn_output_gate", _has_state(text) and kind != SLIDING) else 0
    return hidden * (2 * heads * head_dim + gate + kept * keys * head_dim)


def _has_state(text: Mapping[str, Any]) -> bool:
    """Gated delta net hybrids gate their full attention; the others do not."""
    return bool(text.get("linear_num_value_heads"))


def _state_mixer(text: Mapping[str, Any], hidden: int) -> int:
    if text.get("linear_num_value_heads"):
        keys = text["linear_num_key_heads"] * text["linear_key_head_dim"]
        values = text["linear_num_value_heads"] * text["linear_value_head_dim"]
        return hidden * (2 * keys + 3 * values + 2 * text["linear_num_value_heads"])
    if text.get("mamba_num_heads"):
        inner = text["mamba_num_heads"] * text["mamba_head_dim"]
        groups = 2 * text["n_groups"] * text["ssm_state_size"]
        return hidden * (3 * inner + groups + text["mamba_num_heads"])
    own = text.get("linear_attn_config") or {}
    heads = own.get("num_heads") or text.get("linear_num_heads") or 0
    head_dim = own.get("head_dim") or text.get("linear_head_dim") or 0
    return 4 * hidden * heads * head_dim + 2 * head_dim * (hidden + heads * head_dim)


def _has_mlp(text: Mapping[str, Any], kind: str) -> bool:
    """With one mixer per layer, an MLP is a layer of its own."""
    return kind == NOTHING if text.get("layers_block_type") else True


def _mlp(text: Mapping[str, Any], hidden: int, layer: int, name: str | None) -> int:
    matrices = 2 if text.get("mlp_hidden_act") == "relu2" else 3
    dense = matrices * hidden * (text.get("intermediate_size") or 0)
    experts = next((text[key] for key in ("num_experts", "num_local_experts", "n_routed_experts") if text.get(key)), 0)
    if not experts or name == "mlp" or not _is_sparse(text, layer):
        return dense
    inner = text.get("moe_intermediate_size") or text.get("intermediate_size")
    shared = text.get("shared_expert_intermediate_size") or text.get("moe_shared_expert_intermediate_size")
    if shared is None:
        shared = inner * (text.get("n_shared_experts") or text.get("num_shared_experts") or 0)
    both = dense if text.get("enable_moe_block") else 0  # Gemma adds the experts to its MLP
    return both + matrices * hidden * (experts * inner + shared) + hidden * experts


def _is_sparse(text: Mapping[str, Any], layer: int) -> bool:
    if text.get("mlp_layer_types"):
        return text["mlp_layer_types"][layer] == "sparse"
    if layer in (text.get("mlp_only_layers") or ()):
        return False
    return layer >= (text.get("first_k_dense_replace") or 0)


def _method(config: Mapping[str, Any] | None) -> str | None:
    return config and str(config.get("quant_method") or config.get("quant_algo") or "").lower()


def _quantised_bytes(config: Mapping[str, Any] | None) -> float | None:
    """Bytes per quantised weight; None where nothing is quantised."""
    method = _method(config)
    if not method:
        return None
    bits = _BITS.get(method) or config.get("bits") or config.get("w_bit") or _group_bits(config)
    return float(bits) / 8


def _group_bits(config: Mapping[str, Any]) -> float:
    for group in (config.get("config_groups") or {}).values():
        bits = (group.get("weights") or {}).get("num_bits")
        if bits:
            return float(bits)
    found = re.search(r"(\d+)", str(config.get("quant_algo") or ""))
    return float(found.group(1)) if found else 8.0
