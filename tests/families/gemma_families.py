"""Gemma 4: sliding and full layers of different shape, keys as values, scaled embeddings, capped logits."""

from functools import partial

from family import END_TOKEN, Family, common


def text_config(**more):
    """Five sliding layers, then a full one of twice the head size whose keys are its values."""
    from transformers import Gemma4TextConfig

    return Gemma4TextConfig(
        **common(num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2, head_dim=16),
        intermediate_size=128,
        global_head_dim=32,
        num_global_key_value_heads=1,
        attention_k_eq_v=True,
        sliding_window=12,
        layer_types=["sliding_attention"] * 5 + ["full_attention"],
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {"rope_type": "proportional", "rope_theta": 1000000.0, "partial_rotary_factor": 0.25},
        },
        final_logit_softcapping=30.0,
        hidden_size_per_layer_input=0,
        **more,
    )


def moe_config():
    return text_config(enable_moe_block=True, num_experts=4, top_k_experts=2, moe_intermediate_size=48)


def wrapper_config(text):
    """The multimodal wrapper around ``text()``, with a vision tower of one layer.

    The published checkpoints are wrappers; the text-only class does not load in SGLang 0.5.23 with the transformers
    that it pins, whose config of layers of two shapes has no single head size.
    """
    from transformers import Gemma4Config, Gemma4VisionConfig

    vision = Gemma4VisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        position_embedding_size=256,
    )
    return Gemma4Config(
        text_config=text(),
        vision_config=vision,
        audio_config=None,
        boi_token_id=5,
        eoi_token_id=6,
        image_token_id=7,
        video_token_id=8,
        boa_token_id=9,
        eoa_token_index=10,
        audio_token_id=11,
        eos_token_id=END_TOKEN,
        pad_token_id=0,
        bos_token_id=None,
        tie_word_embeddings=False,
        dtype="float32",
    )


FAMILIES = (
    Family(
        "gemma4",
        "Gemma 4 dense",
        "five sliding layers to a full one, two head sizes, keys as values, scaled embeddings, capped logits",
        ("google/gemma-4-31B-it",),
        partial(wrapper_config, text_config),
        "Gemma4ForConditionalGeneration",
        (0, 2, 4, 5),
        flags=("--skip-tokenizer-init",),
        seed=2,
    ),
    Family(
        "gemma4-moe",
        "Gemma 4 MoE",
        "as Gemma 4 dense, with experts beside the feed-forward layer",
        ("google/gemma-4-26B-A4B-it",),
        partial(wrapper_config, moe_config),
        "Gemma4ForConditionalGeneration",
        (0, 2, 4, 5),
        flags=("--skip-tokenizer-init",),
        seed=2,
    ),
)
