"""Families with Mamba-2 layers: one mixer per layer, be it a state space, attention, experts or a plain MLP."""

from family import Family, common
from hybrid_families import PLAIN_PAGES, TREES

LAYERS = {
    "nemotron-h": ("mamba", "attention", "mlp", "mamba"),
    "nemotron-h-moe": ("mamba", "attention", "moe", "mamba"),
}
GROUPS = 3


def _config(layers: tuple[str, ...], groups: int):
    from transformers import NemotronHConfig

    # Two heads of state size 16 share a group, and no two dimensions are equal.
    return NemotronHConfig(
        **common(num_attention_heads=4, num_key_value_heads=2, head_dim=16),
        layers_block_type=list(layers),
        intermediate_size=96,
        mamba_num_heads=6,
        mamba_head_dim=12,
        ssm_state_size=16,
        n_groups=groups,
        conv_kernel=4,
        expand=1,
        chunk_size=64,
        # transformers holds a prompt's time steps above it, but not those of decoding; SGLang holds none.
        time_step_min=1e-9,
        n_routed_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=48,
        moe_shared_expert_intermediate_size=40,
    )


def nemotron_h(name: str, title: str, traits: str, targets: tuple[str, ...], groups: int = GROUPS, **more) -> Family:
    """A family of layers ``LAYERS[name]``."""
    return Family(
        name,
        title,
        traits,
        targets,
        lambda: _config(LAYERS[name], groups),
        "NemotronHForCausalLM",
        (0, 1, 2),
        tree_flags=TREES,
        seed=4,
        # Field and layer names as SGLang reads them; transformers writes newer ones.
        published={"layers_block_type": LAYERS[name], "mamba_n_groups": groups},
        **more,
    )


FAMILIES = (
    nemotron_h("nemotron-h", "Nemotron-H", "Mamba-2, attention without rotary positions, squared ReLU", ()),
    nemotron_h(
        "nemotron-h-moe",
        "Nemotron-H with experts",
        "Mamba-2, attention without rotary positions, ungated experts beside a shared one",
        ("nvidia/NVIDIA-Nemotron-3.5-Lightning-30B-A3B-NVFP4",),
        plain_flags=PLAIN_PAGES,
    ),
)
