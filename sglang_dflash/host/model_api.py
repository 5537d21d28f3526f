"""SGLang's layers, from which the draft model is built, and the model registry."""

from sglang.srt.layers.activation import SiluAndMul
from sglang.srt.layers.layernorm import RMSNorm
from sglang.srt.layers.linear import (
    MergedColumnParallelLinear,
    QKVParallelLinear,
    ReplicatedLinear,
    RowParallelLinear,
)
from sglang.srt.layers.logits_processor import LogitsProcessorOutput, should_apply_lm_head_quant_method
from sglang.srt.layers.radix_attention import AttentionType, RadixAttention
from sglang.srt.layers.rotary_embedding import get_rope
from sglang.srt.model_loader.weight_utils import default_weight_loader
from sglang.srt.runtime_context import get_parallel

from sglang_dflash.host.contract import Touch

__all__ = [
    "AttentionType",
    "LogitsProcessorOutput",
    "MergedColumnParallelLinear",
    "QKVParallelLinear",
    "RMSNorm",
    "RadixAttention",
    "ReplicatedLinear",
    "RowParallelLinear",
    "SiluAndMul",
    "default_weight_loader",
    "get_parallel",
    "get_rope",
    "register_model",
    "should_apply_lm_head_quant_method",
]


def register_model(name: str, model_class: type) -> None:
    """Make ``model_class`` what a checkpoint of architecture ``name`` loads as."""
    from sglang.srt.models.registry import ModelRegistry

    ModelRegistry.models[name] = model_class


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
    Touch(
        "sglang.srt.layers.linear:MergedColumnParallelLinear", "draft MLP", _LAYERS, ("output_sizes", "bias")
    ),
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
        "sglang.srt.models.registry:ModelRegistry",
        "our draft class takes the place of the built-in one",
        "a registration call that may replace a built-in architecture",
    ),
)
