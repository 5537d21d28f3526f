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


FAMILIES = (
    Family(
        "qwen3",
        "Qwen3 dense",
        "grouped heads, query and key norms",
        ("Qwen/Qwen3-4B", "Qwen/Qwen3-8B"),
        _qwen3,
        "Qwen3ForCausalLM",
        (0, 1, 2),
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
)
