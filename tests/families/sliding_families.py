"""Sliding and full layers that differ in their rotation and heads: Laguna, Muse Glimmer, MiMo."""

from family import END_TOKEN, HIDDEN, VOCAB, WIDE_VOCAB, Family, common


def _laguna():
    from transformers import LagunaConfig

    return LagunaConfig(
        **common(num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=16),
        intermediate_size=128,
        moe_intermediate_size=48,
        shared_expert_intermediate_size=48,
        num_experts=8,
        num_experts_per_tok=2,
        moe_routed_scaling_factor=1.5,
        sliding_window=12,
        layer_types=["sliding_attention", "full_attention"] * 2,
        num_attention_heads_per_layer=[4, 2, 4, 2],
        mlp_layer_types=["dense", "sparse", "sparse", "sparse"],
    )


def _muse():
    from transformers import MuseGlimmerConfig, MuseGlimmerTextConfig, MuseGlimmerVisionConfig

    text = MuseGlimmerTextConfig(
        **common(vocab_size=WIDE_VOCAB, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=16),
        intermediate_size=128,
        sliding_window=12,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        final_logit_softcapping=20.0,
    )
    vision = MuseGlimmerVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        pos_emb_height=8,
        pos_emb_width=8,
        max_position_embeddings=64,
    )
    return MuseGlimmerConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=VOCAB,
        video_token_id=VOCAB + 1,
        out_hidden_size=HIDDEN,
        projector_hidden_size=32,
        eos_token_id=END_TOKEN,
        pad_token_id=0,
        tie_word_embeddings=False,
        dtype="float32",
    )


# Of the published config.json, which SGLang reads.
MIMO_CONFIG = {
    "hybrid_layer_pattern": [0, 1, 1, 0],
    "moe_layer_freq": [0, 1, 1, 1],
    "layernorm_epsilon": 1e-5,
    # SGLang's class takes it as the last key that is seen, transformers' as the number of keys.
    "sliding_window_size": 11,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 4,
    "swa_head_dim": 24,
    "swa_v_head_dim": 16,
    "swa_rope_theta": 10000.0,
    "rope_theta": 5000000.0,
    "partial_rotary_factor": 0.334,
    "rope_scaling": None,
    "add_swa_attention_sink_bias": True,
    "add_full_attention_sink_bias": False,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
}


def _mimo():
    from transformers import MiMoV2FlashConfig

    return MiMoV2FlashConfig(
        **common(num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=24),
        v_head_dim=16,
        intermediate_size=128,
        moe_intermediate_size=48,
        n_routed_experts=8,
        num_experts_per_tok=2,
        sliding_window=12,
        attention_value_scale=0.7,
        layer_types=["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
        mlp_layer_types=["dense", "sparse", "sparse", "sparse"],
    )


def _wide_head(name: str, parameter) -> None:
    # The logits are scaled down after the head.
    if "lm_head" in name:
        parameter.mul_(5)


FAMILIES = (
    Family(
        "laguna",
        "Laguna",
        "sliding and full layers with heads and rotations of their own, gated heads, sigmoid-routed experts",
        ("poolside/Laguna-XS-2.1", "poolside/Laguna-S-2.1"),
        _laguna,
        "LagunaForCausalLM",
        (0, 2, 3),
    ),
    Family(
        "muse-glimmer",
        "Muse Glimmer",
        "sliding layers, full layers without rotation, scaled and capped logits",
        ("meta-models/Muse-Glimmer-30B",),
        _muse,
        "MuseGlimmerForConditionalGeneration",
        (0, 2, 3),
        flags=("--skip-tokenizer-init", "--language-model-only"),
        draft={"vocab_size": WIDE_VOCAB},
        init=_wide_head,
    ),
    Family(
        "mimo-v2",
        "MiMo V2",
        "sliding layers with sinks, keys and values of different width, scaled values, part of a head rotated",
        ("XiaomiMiMo/MiMo-V2.5-Pro",),
        _mimo,
        "MiMoV2FlashForCausalLM",
        (0, 2, 3),
        published=MIMO_CONFIG,
    ),
)
