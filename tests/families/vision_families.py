"""Qwen3.5's multimodal wrapper: rotary positions in three sections, which images spread over a plane."""

from pathlib import Path

from family import END_TOKEN, HIDDEN, VOCAB, WIDE_VOCAB, Family
from hybrid_families import PLAIN_PAGES, TREES, qwen3_5_config

from sglang_dflash.tools.pair import TARGET_DIR

# Added behind the pair's tokens, in this order.
SPECIAL = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
IDS = {name: VOCAB + i for i, name in enumerate(SPECIAL)}
PATCH, MERGE = 16, 2


def _config():
    from transformers import Qwen3_5Config

    vision = dict(
        depth=1,
        hidden_size=32,
        intermediate_size=48,
        num_heads=2,
        patch_size=PATCH,
        spatial_merge_size=MERGE,
        temporal_patch_size=2,
        out_hidden_size=HIDDEN,
        num_position_embeddings=64,
        deepstack_visual_indexes=[],  # of the published config.json, which SGLang reads
    )
    return Qwen3_5Config(
        text_config=qwen3_5_config(vocab_size=WIDE_VOCAB),
        vision_config=vision,
        image_token_id=IDS["image_token"],
        video_token_id=IDS["video_token"],
        vision_start_token_id=IDS["vision_start_token"],
        vision_end_token_id=IDS["vision_end_token"],
        eos_token_id=END_TOKEN,
        pad_token_id=0,
        tie_word_embeddings=False,
        dtype="float32",
    )


def _write_processor(folder: Path) -> None:
    from transformers import AutoTokenizer, Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    sizes = {"shortest_edge": 32 * 32, "longest_edge": 512 * 512}
    Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=PATCH, merge_size=MERGE, size=sizes),
        tokenizer=AutoTokenizer.from_pretrained(TARGET_DIR, extra_special_tokens=SPECIAL),
        video_processor=Qwen3VLVideoProcessor(patch_size=PATCH, merge_size=MERGE),
    ).save_pretrained(folder)


FAMILIES = (
    Family(
        "qwen3.5-vl",
        "Qwen3.5 multimodal",
        "gated delta net hybrid inside its multimodal wrapper, positions of images in a plane",
        ("Qwen/Qwen3.5-4B", "Qwen/Qwen3.5-9B", "Qwen/Qwen3.5-27B", "Qwen/Qwen3.6-27B"),
        _config,
        "Qwen3_5ForConditionalGeneration",
        (0, 2, 3),
        flags=("--mm-attention-backend", "sdpa"),
        plain_flags=PLAIN_PAGES,
        tree_flags=TREES,
        draft={"vocab_size": WIDE_VOCAB},
        processor=_write_processor,
        image_token="<|vision_start|><|image_pad|><|vision_end|>",
    ),
)
