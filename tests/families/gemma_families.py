"""Gemma 4: sliding and full layers of different shape, keys as values, scaled embeddings, capped logits."""

from functools import partial
from pathlib import Path

from family import END_TOKEN, VOCAB, WIDE_VOCAB, Family, common

from sglang_dflash.tools.pair import TARGET_DIR

# Added behind the pair's tokens, in this order.
SPECIAL = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
    "video_token": "<|video|>",
}
IDS = {name: VOCAB + i for i, name in enumerate(SPECIAL)}
IMAGE_TOKENS = 70  # at most, of one image


def text_config(**more):
    """Five sliding layers, then a full one of twice the head size whose keys are its values."""
    from transformers import Gemma4TextConfig

    return Gemma4TextConfig(
        **common(vocab_size=WIDE_VOCAB, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2, head_dim=16),
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
        use_bidirectional_attention="vision",
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
        image_token_id=IDS["image_token"],
        boi_token_id=IDS["boi_token"],
        eoi_token_id=IDS["eoi_token"],
        video_token_id=IDS["video_token"],
        audio_token_id=IDS["audio_token"],
        boa_token_id=IDS["boa_token"],
        eoa_token_index=IDS["eoa_token"],
        eos_token_id=END_TOKEN,
        pad_token_id=0,
        bos_token_id=None,
        tie_word_embeddings=False,
        dtype="float32",
    )


def write_processor(folder: Path) -> None:
    """Tokenizer with the wrapper's special tokens, image processor and all, in ``folder``."""
    from transformers import AutoTokenizer
    from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor
    from transformers.models.gemma4.image_processing_gemma4 import Gemma4ImageProcessor
    from transformers.models.gemma4.processing_gemma4 import Gemma4Processor
    from transformers.models.gemma4.video_processing_gemma4 import Gemma4VideoProcessor

    processor = Gemma4Processor(
        feature_extractor=Gemma4AudioFeatureExtractor(),
        image_processor=Gemma4ImageProcessor(max_soft_tokens=IMAGE_TOKENS),
        tokenizer=AutoTokenizer.from_pretrained(TARGET_DIR, extra_special_tokens=SPECIAL),
        video_processor=Gemma4VideoProcessor(),
    )
    processor.save_pretrained(folder)


FAMILIES = (
    Family(
        "gemma4",
        "Gemma 4 dense",
        "five sliding layers to a full one, two head sizes, keys as values, scaled embeddings, capped logits",
        ("google/gemma-4-31B-it",),
        partial(wrapper_config, text_config),
        "Gemma4ForConditionalGeneration",
        (0, 2, 4, 5),
        flags=("--mm-attention-backend", "sdpa"),
        draft={"vocab_size": WIDE_VOCAB},
        image_token=SPECIAL["image_token"],
        # As many patches as the processor gives room: SGLang 0.5.23 pools padding into an image's first token.
        image_size=(480, 336),
        chunk=160,  # an image must lie in one chunk, or SGLang makes it causal
        processor=write_processor,
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
        flags=("--mm-attention-backend", "sdpa"),
        draft={"vocab_size": WIDE_VOCAB},
        image_token=SPECIAL["image_token"],
        # As many patches as the processor gives room: SGLang 0.5.23 pools padding into an image's first token.
        image_size=(480, 336),
        chunk=160,  # an image must lie in one chunk, or SGLang makes it causal
        processor=write_processor,
        seed=2,
    ),
)
