"""SGLang's layers, from which the draft model is built, and the model registry."""

from typing import Any

import torch
from sglang.srt.layers.activation import SiluAndMul
from sglang.srt.layers.layernorm import GemmaRMSNorm, RMSNorm
from sglang.srt.layers.linear import (
    ColumnParallelLinear,
    MergedColumnParallelLinear,
    QKVParallelLinear,
    ReplicatedLinear,
    RowParallelLinear,
)
from sglang.srt.layers.logits_processor import LogitsProcessorOutput, should_apply_lm_head_quant_method
from sglang.srt.layers.quantization.unquant import UnquantizedLinearMethod
from sglang.srt.layers.radix_attention import AttentionType, RadixAttention
from sglang.srt.layers.rotary_embedding import get_rope
from sglang.srt.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from sglang.srt.model_loader.weight_utils import default_weight_loader, sharded_weight_loader
from sglang.srt.runtime_context import get_parallel

from sglang_dflash.host.contract import Touch

__all__ = [
    "AttentionType",
    "ColumnParallelLinear",
    "GemmaRMSNorm",
    "LogitsProcessorOutput",
    "MergedColumnParallelLinear",
    "ParallelLMHead",
    "QKVParallelLinear",
    "RMSNorm",
    "RadixAttention",
    "ReplicatedLinear",
    "RowParallelLinear",
    "SiluAndMul",
    "VocabParallelEmbedding",
    "default_weight_loader",
    "get_parallel",
    "get_rope",
    "is_dense",
    "register_model",
    "sharded_by_head",
    "should_apply_lm_head_quant_method",
]


def register_model(name: str, model_class: type) -> None:
    """Make ``model_class`` what a checkpoint of architecture ``name`` loads as."""
    from sglang.srt.models.registry import ModelRegistry

    ModelRegistry.models[name] = model_class


def is_dense(linear) -> bool:
    """True for a linear layer whose ``weight`` is a plain matrix."""
    return isinstance(linear.quant_method, UnquantizedLinearMethod)


def sharded_by_head(num_heads: int) -> torch.nn.Parameter:
    """A value for each of this rank's heads, [num_heads]; loads its part of a tensor of all heads."""
    parameter: Any = torch.nn.Parameter(torch.zeros(num_heads), requires_grad=False)
    parameter.weight_loader = sharded_weight_loader(0, parallel_group="tp")
    return parameter


_LAYERS = "never: public layer classes of SGLang"
TOUCHES = (
    Touch(
        "sglang.srt.layers.linear:QKVParallelLinear",
        "draft attention projections",
        _LAYERS,
        (
            "hidden_size",
            "head_size",
            "total_num_heads",
            "total_num_kv_heads",
            "bias",
            "quant_config",
            "prefix",
        ),
    ),
    Touch("sglang.srt.layers.linear:MergedColumnParallelLinear", "draft MLP", _LAYERS, ("output_sizes", "bias")),
    Touch(
        "sglang.srt.layers.linear:RowParallelLinear",
        "draft output projections",
        _LAYERS,
        ("input_size", "bias"),
    ),
    Touch(
        "sglang.srt.layers.linear:ReplicatedLinear",
        "fusion of the context features",
        _LAYERS,
        ("input_size",),
    ),
    Touch(
        "sglang.srt.layers.linear:ColumnParallelLinear",
        "output gates of a draft's attention",
        _LAYERS,
        ("input_size", "output_size", "bias", "quant_config", "prefix"),
    ),
    Touch(
        "sglang.srt.layers.vocab_parallel_embedding:VocabParallelEmbedding",
        "embedding of a draft that ships one",
        _LAYERS,
        ("num_embeddings", "embedding_dim", "quant_config", "prefix"),
    ),
    Touch(
        "sglang.srt.layers.vocab_parallel_embedding:ParallelLMHead",
        "head of a draft that ships one",
        _LAYERS,
        ("num_embeddings", "embedding_dim", "quant_config", "prefix"),
    ),
    Touch("sglang.srt.layers.layernorm:GemmaRMSNorm", "norms of drafts trained with 1 + weight", _LAYERS),
    Touch(
        "sglang.srt.layers.quantization.unquant:UnquantizedLinearMethod",
        "tells plain matrices, which are packed for injection, from quantised ones",
        _LAYERS,
    ),
    Touch(
        "sglang.srt.model_loader.weight_utils:sharded_weight_loader",
        "a rank's part of the attention sinks",
        _LAYERS,
        ("shard_axis", "parallel_group"),
    ),
    Touch(
        "sglang.srt.layers.radix_attention:RadixAttention",
        "draft attention over the shared slots",
        _LAYERS,
        ("num_heads", "head_dim", "scaling", "num_kv_heads", "layer_id", "sliding_window_size", "attn_type"),
    ),
    Touch(
        "sglang.srt.layers.rotary_embedding:get_rope",
        "draft rotary embedding, all scalings",
        _LAYERS,
        ("head_size", "rotary_dim", "max_position", "base", "is_neox_style", "rope_scaling"),
    ),
    Touch(
        "sglang.srt.layers.logits_processor:should_apply_lm_head_quant_method",
        "tells a quantised head, whose own product is called, from a plain matrix",
        _LAYERS,
        ("lm_head",),
    ),
    Touch(
        "sglang.srt.model_loader.weight_utils:default_weight_loader",
        "copies a tensor whose parameter has no loader of its own",
        _LAYERS,
        ("param", "loaded_weight"),
    ),
    Touch(
        "sglang.srt.models.registry:ModelRegistry",
        "our draft class takes the place of the built-in one",
        "a registration call that may replace a built-in architecture",
        attributes=("models",),
    ),
)
