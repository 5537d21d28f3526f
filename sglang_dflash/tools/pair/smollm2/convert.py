"""A Llama GGUF as Hugging Face tensors: names, shapes, and the rows of queries and keys in their first order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np

from sglang_dflash.errors import DFlashError

_WHOLE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
_IN_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def read_fields(path: Path) -> tuple[gguf.GGUFReader, dict]:
    """The reader, and the file's metadata as plain values."""
    reader = gguf.GGUFReader(path)
    return reader, {name: field.contents() for name, field in reader.fields.items()}


def tensor_name(name: str) -> str:
    """Hugging Face's name of a GGUF tensor of a Llama model.

    Raises:
        DFlashError: it is none that such a model has.
    """
    if name in _WHOLE:
        return _WHOLE[name]
    parts = name.split(".")
    if len(parts) != 4 or parts[0] != "blk" or parts[2] not in _IN_LAYER or parts[3] != "weight":
        raise DFlashError("gguf", f"has a tensor {name!r}", "convert a Llama model with tied embeddings")
    return f"model.layers.{parts[1]}.{_IN_LAYER[parts[2]]}.weight"


def halves_from_pairs(rows: np.ndarray, heads: int) -> np.ndarray:
    """Undo GGUF's row order of queries and keys, [heads * dim, hidden].

    GGUF turns neighbouring rows of a head together, Hugging Face a row and the one half a head further.
    """
    dim = rows.shape[0] // heads
    return rows.reshape(heads, dim // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def tensors(reader: gguf.GGUFReader, fields: dict) -> Iterator[tuple[str, np.ndarray]]:
    """(name, float32 values) of every tensor, dequantised by the gguf library."""
    heads = {"attn_q": fields["llama.attention.head_count"], "attn_k": fields["llama.attention.head_count_kv"]}
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        part = tensor.name.split(".")[2] if tensor.name.startswith("blk.") else ""
        if part in heads:
            values = halves_from_pairs(values, heads[part])
        yield tensor_name(tensor.name), np.ascontiguousarray(values)


def tensors_digest(values: dict[str, np.ndarray]) -> str:
    """sha256 over names and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(values):
        digest.update(name.encode())
        digest.update(memoryview(values[name]).cast("B"))
    return digest.hexdigest()


def llama_config(fields: dict, dtype: str) -> dict:
    """config.json for ``LlamaForCausalLM``."""
    hidden, heads = fields["llama.embedding_length"], fields["llama.attention.head_count"]
    theta = float(fields["llama.rope.freq_base"])
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": fields["llama.vocab_size"],
        "hidden_size": hidden,
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": hidden // heads,
        "max_position_embeddings": fields["llama.context_length"],
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        # GGUF keeps it as float32; the model's own config has the decimal.
        "rms_norm_eps": float(f"{fields['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        "use_cache": True,
        "dtype": dtype,
    }
