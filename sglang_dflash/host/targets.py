"""Which targets can hand out their hidden states in the installed SGLang, known before they are loaded."""

from collections.abc import Sequence

from sglang_dflash.errors import DFlashError

# Classes without ``set_dflash_layers_to_capture``, for whose targets drafts are published.
WITHOUT_CAPTURE = {
    "MiniMaxM2ForCausalLM": "minimax_m2",
    "DeepseekV4ForCausalLM": "deepseek_v4",
    "Glm4MoeForCausalLM": "glm4_moe",
}
# Classes that capture a layer's input only: the last layer's output is nobody's input.
WITHOUT_LAST_OUTPUT = {
    "Qwen3ForCausalLM": "qwen3",
    "LlamaForCausalLM": "llama",
    "Qwen3MoeForCausalLM": "qwen3_moe",
    "Qwen3NextForCausalLM": "qwen3_next",
    "Qwen3VLForConditionalGeneration": "qwen3_vl",
    "Qwen3_5ForConditionalGeneration": "qwen3_5",
    "Qwen3_5MoeForConditionalGeneration": "qwen3_5",
    "DeepseekV2ForCausalLM": "deepseek_v2",
    "DeepseekV3ForCausalLM": "deepseek_v2",
    "DeepseekV32ForCausalLM": "deepseek_v2",
    "KimiK25ForConditionalGeneration": "kimi_k25",
    "Glm4MoeLiteForCausalLM": "glm4_moe_lite",
}


def check_capture(architecture: str, layer_ids: Sequence[int], num_layers: int) -> None:
    """Refuse a target whose hidden states SGLang cannot capture at ``layer_ids``.

    Raises:
        DFlashError: naming the target's architecture or the draft's layer id.
    """
    if architecture in WITHOUT_CAPTURE:
        raise DFlashError(
            "target architectures",
            f"{architecture} cannot hand out hidden states in this SGLang, which DFLASH needs",
            "serve it without --speculative-algorithm DFLASH",
        )
    if architecture in WITHOUT_LAST_OUTPUT and num_layers - 1 in layer_ids:
        raise DFlashError(
            "draft target_layer_ids",
            f"hold {num_layers - 1}, the last layer, whose output SGLang does not capture for {architecture}",
            f"use a draft with layers 0 to {num_layers - 2}",
        )
