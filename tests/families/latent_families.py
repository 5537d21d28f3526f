"""Latent attention: one compressed row per token serves all heads as key and value."""

import json
import shutil
from pathlib import Path

from family import END_TOKEN, HIDDEN, VOCAB, WIDE_VOCAB, Family, common, rope

from sglang_dflash.tools.pair import TARGET_DIR

LATENT = {"kv_lora_rank": 32, "q_lora_rank": 24, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16}


def deepseek_config(**more):
    from transformers import DeepseekV3Config

    return DeepseekV3Config(
        **common(num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4) | more,
        **LATENT,
        intermediate_size=128,
        moe_intermediate_size=48,
        n_routed_experts=8,
        n_shared_experts=1,
        num_experts_per_tok=2,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
        routed_scaling_factor=1.5,
        norm_topk_prob=True,
        num_mtp_layers=0,
        # Of the published config.json, which SGLang reads.
        moe_layer_freq=1,
        scoring_func="sigmoid",
        topk_method="noaux_tc",
        architectures=["DeepseekV3ForCausalLM"],
        rope_parameters=rope(
            rope_type="yarn",
            factor=4.0,
            beta_fast=32,
            beta_slow=1,
            mscale=1.0,
            mscale_all_dim=1.0,
            original_max_position_embeddings=256,
        ),
    )


def _glm_lite():
    from transformers import Glm4MoeLiteConfig

    return Glm4MoeLiteConfig(
        **common(num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4),
        **LATENT,
        intermediate_size=128,
        moe_intermediate_size=48,
        n_routed_experts=8,
        n_shared_experts=1,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        routed_scaling_factor=1.5,
        mlp_layer_types=["dense"] + ["sparse"] * 3,
        rope_parameters=rope(),
        # Of the published config.json, which SGLang reads.
        first_k_dense_replace=1,
        moe_layer_freq=1,
        num_nextn_predict_layers=0,
    )


VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
# The published config.json's names of the same fields.
KIMI_CONFIG = {
    "architectures": ["KimiK25ForConditionalGeneration"],
    "media_placeholder_token_id": VOCAB,
    "vision_config": {
        "model_type": "kimi_k25_vision",
        "patch_size": 14,
        "merge_kernel_size": [2, 2],
        "pos_emb_height": 8,
        "pos_emb_width": 8,
        "init_pos_emb_height": 8,
        "init_pos_emb_width": 8,
        "init_pos_emb_time": 4,
        "text_hidden_size": HIDDEN,
        "mm_hidden_size": VISION["hidden_size"],
        **VISION,
        **{f"vt_{name}": value for name, value in VISION.items()},
    },
}


def _kimi():
    from transformers import Kimi_K25Config, Kimi_K25VisionConfig

    return Kimi_K25Config(
        text_config=deepseek_config(vocab_size=WIDE_VOCAB),
        vision_config=Kimi_K25VisionConfig(pos_emb_height=8, pos_emb_width=8, **VISION),
        projection_hidden_size=VISION["hidden_size"],
        image_token_id=VOCAB,
        video_token_id=VOCAB + 1,
        vision_start_token_id=VOCAB + 2,
        vision_end_token_id=VOCAB + 3,
        eos_token_id=END_TOKEN,
        pad_token_id=0,
        tie_word_embeddings=False,
        dtype="float32",
    )


def _write_processor(folder: Path) -> None:
    """The tokenizer with a token for images, and a processor that is code, as in the published checkpoints."""
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(TARGET_DIR, extra_special_tokens={"media_pad": "<|media_pad|>"}).save_pretrained(
        folder
    )
    code = Path(__file__).with_name("kimi_processor.py")
    shutil.copy(code, folder / code.name)
    config = {"processor_class": "KimiProcessor", "auto_map": {"AutoProcessor": f"{code.stem}.KimiProcessor"}}
    (folder / "processor_config.json").write_text(json.dumps(config))


FAMILIES = (
    Family(
        "deepseek-v3",
        "DeepSeek V3",
        "latent attention, group-limited sigmoid routing, shared experts",
        ("deepseek-ai/DeepSeek-V3",),
        deepseek_config,
        "DeepseekV3ForCausalLM",
        (0, 2, 3),
    ),
    Family(
        "glm4-moe-lite",
        "GLM-4.7 Flash",
        "latent attention, sigmoid-routed experts",
        ("zai-org/GLM-4.7-Flash",),
        _glm_lite,
        "Glm4MoeLiteForCausalLM",
        (0, 2, 3),
    ),
    Family(
        "kimi-k25",
        "Kimi K2.5",
        "DeepSeek V3 as the language model of a multimodal wrapper",
        ("moonshotai/Kimi-K2.5", "moonshotai/Kimi-K2.6"),
        _kimi,
        "Kimi_K25ForConditionalGeneration",
        (0, 2, 3),
        flags=("--trust-remote-code", "--mm-attention-backend", "sdpa"),
        draft={"vocab_size": WIDE_VOCAB},
        processor=_write_processor,
        # Published prompts have tokens around it, too: SGLang joins a run at the end with one at the start.
        image_token="image <|media_pad|>.",
        image_size=(112, 112),
        published=KIMI_CONFIG,
        # transformers does not write all names as they are published.
        rename={
            "language_model.model.blocks.": "language_model.model.layers.",
            "vision_tower.encoder.patch_embed.": "vision_tower.patch_embed.",
            "model.mm_projector.": "mm_projector.",
        },
    ),
)
