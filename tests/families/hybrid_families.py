"""Families some of whose layers keep a recurrent state: three gated delta nets to one full attention."""

from family import Family, common, rope

# Snapshots of the state every 64 tokens, the smallest step SGLang takes: prefix hits happen in short prompts.
SNAPSHOTS = ("--mamba-track-interval", "64")
EXTRA = ("--mamba-radix-cache-strategy", "extra_buffer", *SNAPSHOTS)
# A chunk is at least as long, or none of its states would be kept.
TREES = ("--page-size", "4", *EXTRA, "--chunked-prefill-size", "64")
PLAIN_PAGES = ("--page-size", "16", *EXTRA)


def _gated_delta(**more) -> dict:
    # Key and value dimensions differ, and so do their numbers of heads: a transposed state would not fit.
    return common(
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        full_attention_interval=4,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=16,
        linear_value_head_dim=8,
        linear_conv_kernel_dim=4,
        intermediate_size=128,
        **more,
    )


_EXPERTS = dict(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=48, shared_expert_intermediate_size=48)


def _qwen3_next():
    from transformers import Qwen3NextConfig

    config = Qwen3NextConfig(**_gated_delta(**_EXPERTS, rope_parameters=rope(partial_rotary_factor=0.25)))
    return _with_interval(config)


def qwen3_5_config(**more):
    from transformers import Qwen3_5TextConfig

    return _with_interval(Qwen3_5TextConfig(**_gated_delta(rope_parameters=_mrope()) | more))


def _qwen3_5_moe():
    from transformers import Qwen3_5MoeTextConfig

    return _with_interval(Qwen3_5MoeTextConfig(**_gated_delta(**_EXPERTS, rope_parameters=_mrope())))


def _with_interval(config):
    # Published files have it, and SGLang reads it; transformers keeps the layer types it makes of it.
    config.full_attention_interval = 4
    return config


def _mrope() -> dict:
    return rope(partial_rotary_factor=0.25, mrope_section=[2, 1, 1], mrope_interleaved=True)


FAMILIES = (
    Family(
        "qwen3-next",
        "Qwen3-Next",
        "gated delta net and gated full attention, experts beside a shared one",
        ("Qwen/Qwen3-Coder-Next",),
        _qwen3_next,
        "Qwen3NextForCausalLM",
        (0, 2, 3),
        plain_flags=PLAIN_PAGES,
        tree_flags=TREES,
    ),
    Family(
        "qwen3.5",
        "Qwen3.5 and 3.6 dense",
        "gated delta net and gated full attention, rotary positions in three sections",
        ("Qwen/Qwen3.5-4B", "Qwen/Qwen3.5-9B", "Qwen/Qwen3.5-27B", "Qwen/Qwen3.6-27B"),
        qwen3_5_config,
        "Qwen3_5ForCausalLM",
        (0, 2, 3),
        tree_flags=TREES,
    ),
    Family(
        "qwen3.5-moe",
        "Qwen3.5 and 3.6 MoE",
        "gated delta net and gated full attention, experts beside a shared one",
        ("Qwen/Qwen3.5-35B-A3B", "Qwen/Qwen3.5-122B-A10B", "Qwen/Qwen3.5-397B-A17B", "Qwen/Qwen3.6-35B-A3B"),
        _qwen3_5_moe,
        "Qwen3_5MoeForCausalLM",
        (0, 2, 3),
        plain_flags=PLAIN_PAGES,
        tree_flags=TREES,
    ),
)
