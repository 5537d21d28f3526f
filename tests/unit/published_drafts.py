"""Fields of published DFlash drafts' ``config.json``, as their owners describe them."""

from typing import Any


def plain(**fields: Any) -> dict[str, Any]:
    """A z-lab draft of the first generation: DFlash's fields at the top level or in ``dflash_config``."""
    base = {
        "architectures": ["DFlashDraftModel"],
        "model_type": "qwen3",
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 5,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000,
        "max_position_embeddings": 40960,
        "block_size": 16,
        "num_target_layers": 36,
        "dflash_config": {"mask_token_id": 151669, "target_layer_ids": [1, 9, 17, 25, 33]},
    }
    return base | fields


QWEN3_8B = plain()

# Second generation: block_size nested, rope_parameters, sliding layers, eight captured layers.
QWEN35_27B = plain(
    hidden_size=5120,
    intermediate_size=17408,
    num_hidden_layers=6,
    vocab_size=248320,
    max_position_embeddings=262144,
    rope_parameters={"rope_type": "default", "rope_theta": 10000000},
    layer_types=["sliding_attention"] * 5 + ["full_attention"],
    sliding_window=4096,
    use_sliding_window=True,
    num_target_layers=64,
    dflash_config={
        "block_size": 16,
        "mask_token_id": 248077,
        "target_layer_ids": [1, 10, 18, 27, 35, 44, 52, 61],
    },
)
for _key in ("rope_theta", "block_size"):
    del QWEN35_27B[_key]

GPT_OSS_20B = plain(
    hidden_size=2880,
    intermediate_size=7680,
    num_hidden_layers=8,
    num_attention_heads=64,
    head_dim=64,
    vocab_size=201088,
    attention_bias=True,
    rope_theta=150000,
    rope_scaling={"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096},
    block_size=8,
    num_target_layers=24,
    dflash_config={"mask_token_id": 200000, "target_layer_ids": [1, 6, 11, 16, 21]},
)

GEMMA4_31B = plain(
    hidden_size=5376,
    intermediate_size=10752,
    num_attention_heads=64,
    vocab_size=262144,
    layer_types=["sliding_attention"] * 4 + ["full_attention"],
    sliding_window=2048,
    use_sliding_window=True,
    final_logit_softcapping=30.0,
    num_target_layers=60,
    dflash_config={"mask_token_id": 4, "target_layer_ids": [1, 12, 23, 35, 46, 57]},
)

# All sliding, explicitly bidirectional, with the convolution and the selector.
QWEN38_27B_DFLASH2 = plain(
    architectures=["DFlash2DraftModel"],
    hidden_size=5120,
    intermediate_size=17408,
    vocab_size=248320,
    layer_types=["sliding_attention"] * 5,
    sliding_window=2048,
    use_sliding_window=True,
    is_causal=False,
    block_size=8,
    num_target_layers=64,
    dflash_config={
        "mask_token_id": 248070,
        "target_layer_ids": [5, 19, 33, 47, 61],
        "conv_kernel_size": 2,
        "conv_group_size": 16,
        "selector_rank": 256,
        "selector_top_k": 16,
    },
)

MIMO_25_PRO = plain(
    hidden_size=6144,
    intermediate_size=16384,
    num_attention_heads=128,
    vocab_size=152064,
    partial_rotary_factor=0.5,
    sliding_window=1024,
    rope_theta=10000,
    block_size=8,
    num_target_layers=70,
    dflash_config={
        "mask_token_id": 151669,
        "target_layer_ids": [0, 15, 31, 47, 69],
        "block_size": 8,
        "use_swa": True,
        "swa_window_size": 1024,
        "attention_sink_bias": True,
        "attention_value_scale": 0.612,
    },
)

LAGUNA_XS = {
    "architectures": ["DFlashLagunaForCausalLM"],
    "model_type": "laguna",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 5,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "attention_bias": False,
    "max_position_embeddings": 262144,
    "rms_norm_eps": 1e-6,
    "sliding_window": 512,
    "vocab_size": 100352,
    "draft_vocab_size": 100352,
    "layer_types": ["sliding_attention"] * 5,
    "rope_theta": 500000.0,
    "gating": "per-head",
    "eagle_aux_hidden_state_layer_ids": [2, 14, 26, 34, 40],
    "dflash_config": {
        "block_size": 16,
        "mask_token_id": 12,
        "num_target_layers": 40,
        "target_layer_ids": [1, 13, 25, 33, 39],
        "causal": True,
    },
}

MUSE_30B = {
    "architectures": ["MuseGlimmerAssistantModel"],
    "model_type": "muse_glimmer_assistant",
    "hidden_size": 6656,
    "intermediate_size": 19968,
    "num_hidden_layers": 5,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    "max_position_embeddings": 131072,
    "sliding_window": 2048,
    "layer_types": ["sliding_attention"] * 5,
    "block_size": 16,
    "mask_token_id": 201818,
    "target_layer_ids": [1, 13, 25, 37, 49],
}

# Own embedding, YaRN, weights in 4 bits; DFlash's fields at both levels, no block size.
NEMOTRON_35 = plain(
    hidden_size=2688,
    intermediate_size=6144,
    num_hidden_layers=6,
    num_key_value_heads=2,
    vocab_size=131072,
    max_position_embeddings=1048576,
    rope_theta=10000,
    rope_parameters={
        "factor": 128.0,
        "original_max_position_embeddings": 8192,
        "rope_theta": 10000,
        "rope_type": "yarn",
    },
    layer_types=["full_attention"] * 6,
    sliding_window=None,
    attention_sink_bias=False,
    dflash_query_causal=False,
    draft_vocab_size=None,
    has_embed_tokens=True,
    has_lm_head=False,
    sample_from_anchor=False,
    eagle_aux_hidden_state_layer_ids=[2, 6, 20, 30, 42, 52],
    mask_token_id=990,
    target_layer_ids=[1, 5, 19, 29, 41, 51],
    quantization_config={"quant_method": "modelopt", "quant_algo": "W4A16_NVFP4"},
    dflash_config={
        "attention_sink_bias": False,
        "causal": False,
        "mask_token_id": 990,
        "target_layer_ids": [1, 5, 19, 29, 41, 51],
        "use_swa": False,
        "sample_from_anchor": False,
    },
)
for _key in ("block_size", "num_target_layers"):
    del NEMOTRON_35[_key]

# vLLM's speculators library: layers nested, ids counted from the embedding, a head over part of the vocabulary.
SPECULATORS = {
    "architectures": ["DFlashDraftModel"],
    "speculators_model_type": "dflash",
    "speculators_version": "0.5.0",
    "speculators_config": {"algorithm": "dflash", "proposal_methods": [{"speculative_tokens": 7}]},
    "aux_hidden_state_layer_ids": [1, 17, 29, 47, 58],
    "block_size": 8,
    "draft_vocab_size": 32000,
    "mask_token_id": 4,
    "dtype": "bfloat16",
    "target_hidden_size": None,
    "transformer_layer_config": {
        "head_dim": 256,
        "hidden_act": "silu",
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "max_position_embeddings": 262144,
        "model_type": "llama",
        "num_attention_heads": 32,
        "num_hidden_layers": 5,
        "num_key_value_heads": 16,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "vocab_size": 262144,
    },
}

# name -> (config, variant that we do not implement)
ALL = {
    "Qwen3-8B-DFlash-b16": (QWEN3_8B, None),
    "Qwen3.5-27B-DFlash": (QWEN35_27B, None),
    "gpt-oss-20b-DFlash": (GPT_OSS_20B, None),
    "gemma-4-31B-it-DFlash": (GEMMA4_31B, None),
    "Qwen3.8-27B-DFlash2": (QWEN38_27B_DFLASH2, None),
    "MiMo-V2.5-Pro-FP4-DFlash": (MIMO_25_PRO, None),
    "Laguna-XS-2.1-DFlash": (LAGUNA_XS, None),
    "Muse-Glimmer-30B-assistant": (MUSE_30B, None),
    "Nemotron-3.5-DFlash": (NEMOTRON_35, None),
    "gemma-4-31B-it-speculator.dflash": (SPECULATORS, None),
    "a Domino draft": (
        plain(dflash_config=QWEN3_8B["dflash_config"] | {"projector_type": "domino", "gru_hidden_dim": 1024}),
        "Domino",
    ),
    "a LiLiCorr draft": (
        plain(dflash_config=QWEN3_8B["dflash_config"] | {"lilicorr_candidate_topk": 8}),
        "LiLiCorr",
    ),
}
