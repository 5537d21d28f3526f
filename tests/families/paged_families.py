"""Families whose only state is paged KV: dense, MoE, sliding windows, sinks, latent attention."""

from family import Family, common, rope


def _qwen3():
    from transformers import Qwen3Config

    return Qwen3Config(
        **common(num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=16),
        intermediate_size=128,
        rope_parameters=rope(),
    )


def _llama():
    from transformers import LlamaConfig

    scaling = rope(
        50000.0,
        rope_type="llama3",
        factor=4.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=64,
    )
    return LlamaConfig(
        **common(num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2),
        intermediate_size=128,
        rope_parameters=scaling,
    )


def _qwen3_moe():
    from transformers import Qwen3MoeConfig

    return Qwen3MoeConfig(
        **common(num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=16),
        intermediate_size=128,
        moe_intermediate_size=48,
        num_experts=8,
        num_experts_per_tok=2,
        norm_topk_prob=True,
        decoder_sparse_step=1,
        rope_parameters=rope(),
    )


def _gpt_oss():
    from transformers import GptOssConfig

    return GptOssConfig(
        **common(num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=24),
        intermediate_size=48,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"] * 2,
        rope_parameters=rope(
            150000.0,
            rope_type="yarn",
            factor=4.0,
            beta_fast=32.0,
            beta_slow=1.0,
            truncate=False,
            original_max_position_embeddings=256,
        ),
    )


def _minimax_m2():
    from transformers import MiniMaxM2Config

    return MiniMaxM2Config(
        **common(num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=16),
        intermediate_size=48,
        num_local_experts=8,
        num_experts_per_tok=2,
        rope_parameters=rope(partial_rotary_factor=0.5),
        # Of the published config.json, which SGLang reads.
        rotary_dim=8,
        scoring_func="sigmoid",
        use_routing_bias=True,
        use_qk_norm=True,
        qk_norm_type="per_layer",
    )


def _glm4_moe():
    from transformers import Glm4MoeConfig

    return Glm4MoeConfig(
        **common(num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=16),
        intermediate_size=128,
        moe_intermediate_size=48,
        n_routed_experts=8,
        n_shared_experts=1,
        num_experts_per_tok=2,
        routed_scaling_factor=1.5,
        first_k_dense_replace=1,
        use_qk_norm=True,
        attention_bias=True,
        rope_parameters=rope(partial_rotary_factor=0.5),
    )


FAMILIES = (
    Family(
        "qwen3",
        "Qwen3 dense",
        "grouped heads, query and key norms",
        ("Qwen/Qwen3-4B", "Qwen/Qwen3-8B"),
        _qwen3,
        "Qwen3ForCausalLM",
        (0, 2, 3),
    ),
    Family(
        "llama",
        "Llama 3.1",
        "llama3 rope scaling",
        ("meta-llama/Llama-3.1-8B-Instruct",),
        _llama,
        "LlamaForCausalLM",
        (0, 2, 3),
    ),
    Family(
        "qwen3-moe",
        "Qwen3 MoE",
        "softmax-routed experts",
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct",),
        _qwen3_moe,
        "Qwen3MoeForCausalLM",
        (0, 2, 3),
    ),
    Family(
        "gpt-oss",
        "gpt-oss",
        "attention sinks, alternating sliding windows, clamped experts with biases, YaRN",
        ("openai/gpt-oss-20b", "openai/gpt-oss-120b"),
        _gpt_oss,
        "GptOssForCausalLM",
        (0, 2, 3),
    ),
    Family(
        "minimax-m2",
        "MiniMax M2",
        "norms over all heads at once, half-rotated heads, sigmoid-routed experts with a bias",
        ("MiniMaxAI/MiniMax-M2.5", "MiniMaxAI/MiniMax-M2.7"),
        _minimax_m2,
        "MiniMaxM2ForCausalLM",
        (0, 2, 3),
    ),
    Family(
        "glm4-moe",
        "GLM-4 MoE",
        "half-rotated heads, shared and sigmoid-routed experts",
        ("zai-org/GLM-4.7",),
        _glm4_moe,
        "Glm4MoeForCausalLM",
        (0, 2, 3),
    ),
)
