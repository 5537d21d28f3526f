"""Model parts of SGLang that the CPU platform computes with fewer torch calls."""

from sglang.kernels.fused_op import BaseFusedOp
from sglang.srt.distributed import tensor_model_parallel_all_reduce
from sglang.srt.layers.activation import SiluAndMul
from sglang.srt.layers.aux_hidden_states import AuxHiddenStateList, pack_aux_hidden_states
from sglang.srt.layers.layernorm import Gemma4RMSNorm, RMSNorm
from sglang.srt.layers.logits_processor import LogitsProcessorOutput
from sglang.srt.layers.moe.token_dispatcher import StandardCombineInput
from sglang.srt.layers.quantization.unquant import (
    UnquantizedEmbeddingMethod,
    UnquantizedFusedMoEMethod,
    UnquantizedLinearMethod,
)
from sglang.srt.layers.rotary_embedding.base import LinearScalingRotaryEmbedding, RotaryEmbedding
from sglang.srt.layers.rotary_embedding.rope_variant import Llama3RotaryEmbedding
from sglang.srt.layers.rotary_embedding.yarn import YaRNScalingRotaryEmbedding
from sglang.srt.model_executor.forward_context import get_attn_backend
from sglang.srt.runtime_context import get_context

from sglang_dflash.host.contract import Touch

__all__ = [
    "ROTARY_CLASSES",
    "AuxHiddenStateList",
    "Gemma4RMSNorm",
    "LogitsProcessorOutput",
    "RMSNorm",
    "SiluAndMul",
    "StandardCombineInput",
    "UnquantizedEmbeddingMethod",
    "UnquantizedFusedMoEMethod",
    "UnquantizedLinearMethod",
    "get_attn_backend",
    "lora_enabled",
    "pack_aux_hidden_states",
    "register_forward",
    "tensor_model_parallel_all_reduce",
]

# Classes that differ in their cos/sin table only, not in how they apply it.
ROTARY_CLASSES = (
    RotaryEmbedding,
    LinearScalingRotaryEmbedding,
    Llama3RotaryEmbedding,
    YaRNScalingRotaryEmbedding,
)

_PUBLIC = "never: public"
_DECODER = "SGLang's own decoder pass costs little more than its torch calls on a CPU"


def _decoder_touches(family: str) -> tuple[Touch, ...]:
    """Rows of a family of models, ``module:Name``, that the lean pass stands in for."""
    return (
        Touch(
            f"{family}Model.forward",
            "replaced on the loaded model: the lean decoder pass",
            _DECODER,
            ("input_ids", "positions", "forward_batch", "input_embeds", "pp_proxy_tensors"),
        ),
        Touch(f"{family}ForCausalLM", "a model the lean pass stands in for", _DECODER),
        Touch(
            f"{family}ForCausalLM.forward",
            "replaced on the loaded model in decode and verify passes: one product for the logits",
            _DECODER,
            ("input_ids", "positions", "forward_batch"),
        ),
    )


TOUCHES = (
    Touch(
        "sglang.kernels.fused_op:BaseFusedOp.register_oot_forward",
        "registers a platform's own forward of an operator",
        _PUBLIC,
        ("op_cls", "fn", "platform_key"),
    ),
    Touch(
        "sglang.srt.layers.layernorm:RMSNorm.forward_native",
        "own forward: one torch call instead of seven",
        _PUBLIC,
        ("x", "residual", "post_residual_addition", "quant_linear"),
    ),
    Touch(
        "sglang.srt.layers.layernorm:Gemma4RMSNorm.forward_native",
        "own forward: SGLang's drops the scale that Gemma 4's router folds into its norm",
        "fixed in SGLang",
        ("x",),
    ),
    Touch("sglang.srt.layers.activation:SiluAndMul.forward_native", "own forward: in place", _PUBLIC, ("x",)),
    Touch(
        "sglang.srt.layers.rotary_embedding.base:RotaryEmbedding.forward_native",
        "own forward: three torch calls a tensor instead of eight",
        _PUBLIC,
        ("positions", "query", "key", "offsets", "fused_set_kv_buffer_arg"),
    ),
    Touch(
        "sglang.srt.layers.quantization.unquant:UnquantizedFusedMoEMethod.forward_native",
        "own forward: SGLang's compiles gpt-oss' activation and knows no ungated experts",
        _PUBLIC,
        ("layer", "dispatch_output"),
    ),
    Touch(
        "sglang.srt.layers.moe.moe_runner.base:MoeRunnerConfig",
        "says which activation the experts have",
        _PUBLIC,
        (
            "activation",
            "is_gated",
            "gemm1_alpha",
            "gemm1_clamp_limit",
            "gate_up_interleaved",
            "no_combine",
            "apply_router_weight_on_input",
        ),
    ),
    Touch(
        "sglang.srt.layers.moe.token_dispatcher:StandardCombineInput",
        "how the experts' sum is handed on",
        _PUBLIC,
        ("hidden_states",),
    ),
    *(
        Touch(f"sglang.srt.layers.rotary_embedding.{name}", "served by the same forward", _PUBLIC)
        for name in (
            "base:LinearScalingRotaryEmbedding",
            "rope_variant:Llama3RotaryEmbedding",
            "yarn:YaRNScalingRotaryEmbedding",
        )
    ),
    *(
        touch
        for module, family in (("qwen3", "Qwen3"), ("qwen2", "Qwen2"), ("llama", "Llama"))
        for touch in _decoder_touches(f"sglang.srt.models.{module}:{family}")
    ),
    Touch("sglang.srt.models.mistral:MistralForCausalLM", "the lean pass stands in for it, a Llama", _DECODER),
    Touch(
        "sglang.srt.layers.logits_processor:LogitsProcessorOutput",
        "how logits are handed on",
        _DECODER,
        ("next_token_logits",),
    ),
    Touch(
        "sglang.srt.layers.quantization.unquant:UnquantizedEmbeddingMethod",
        "tells a plain head from others",
        _DECODER,
    ),
    Touch(
        "sglang.srt.layers.aux_hidden_states:AuxHiddenStateList",
        "how captured layers are handed on",
        _DECODER,
    ),
    Touch(
        "sglang.srt.layers.aux_hidden_states:pack_aux_hidden_states",
        "captured layers side by side, as SGLang's logits processor stores them",
        _PUBLIC,
    ),
    Touch(
        "sglang.srt.layers.quantization.unquant:UnquantizedLinearMethod",
        "tells plain weights from others",
        _DECODER,
    ),
    Touch("sglang.srt.model_executor.forward_context:get_attn_backend", "the backend of this forward", _DECODER),
    Touch("sglang.srt.distributed:tensor_model_parallel_all_reduce", "joins the ranks' partial sums", _PUBLIC),
    Touch("sglang.srt.runtime_context:get_context", "is LoRA on?", _PUBLIC),
)


def register_forward(op_class: type, forward, platform_key: str) -> None:
    """Make ``forward(self, ...)`` the forward of ``op_class`` on our platform."""
    BaseFusedOp.register_oot_forward(op_class, forward, platform_key)


def lora_enabled() -> bool:
    """True where LoRA adapters replace linear layers after the model is loaded."""
    return bool(get_context().server_args.enable_lora)
