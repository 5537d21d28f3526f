"""Defaults of config classes, as a table: what a ``config.json`` leaves out, without importing transformers.

``class_defaults.json`` is made by ``python -m sglang_dflash.tools.doctor.class_defaults``; a test compares it with the
installed transformers. A class that computes a field from others has it under "computed": a file that lacks such a
field is read by transformers itself.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("class_defaults.json")
# Classes of language models that the catalogue's targets have.
KINDS = (
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "qwen3_next",
    "qwen3_5_text",
    "qwen3_5_moe_text",
    "llama",
    "gpt_oss",
    "minimax_m2",
    "glm4_moe",
    "glm4_moe_lite",
    "gemma4_text",
    "laguna",
    "deepseek_v3",
    "nemotron_h",
)
# Fields that checks and figures read; a test has a target's config say what else is asked of it.
READ = tuple(
    """attention_k_eq_v attn_output_gate conv_kernel enable_moe_block first_k_dense_replace global_head_dim head_dim
    hidden_size hidden_size_per_layer_input hybrid_override_pattern index_head_dim index_topk intermediate_size
    kv_lora_rank layer_types layers_block_type linear_attn_config linear_conv_kernel_dim linear_head_dim
    linear_key_head_dim linear_num_heads linear_num_key_heads linear_num_value_heads linear_value_head_dim
    mamba_head_dim mamba_num_heads mamba_ssm_dtype max_position_embeddings mlp_hidden_act mlp_layer_types
    mlp_only_layers moe_intermediate_size moe_shared_expert_intermediate_size n_groups n_routed_experts
    n_shared_experts num_attention_heads num_experts num_global_key_value_heads num_hidden_layers num_key_value_heads
    num_local_experts num_loops num_shared_experts per_layer_config q_lora_rank qk_nope_head_dim qk_rope_head_dim
    rope_parameters shared_expert_intermediate_size sliding_window ssm_state_size swa_head_dim
    swa_num_key_value_heads tie_word_embeddings use_sliding_window v_head_dim vocab_size
    vocab_size_per_layer_input""".split()
)
# Changes of a default config that show which fields a class computes.
_PROBES = (
    {"num_hidden_layers": 12},
    {"num_hidden_layers": 52},
    {"num_attention_heads": 8},
    {"num_key_value_heads": 1},
    {"hidden_size": 1024},
    {"head_dim": 24},
    {"max_position_embeddings": 1000},
)
_FULL = "full_attention"


def filled(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """A flat target config with its class's defaults; None where only transformers knows them."""
    row = _table().get(config.get("model_type"))
    # Sliding layers are named by the class, from a first layer on.
    if row is None or config.get("text_config") or config.get("use_sliding_window"):
        return None
    defaults = row["defaults"]
    if "rope_theta" in config:  # the class would repeat it there
        defaults = {name: value for name, value in defaults.items() if name != "rope_parameters"}
        if not row["one_rope"]:
            return None
    return None if any(name not in config for name in row["computed"]) else defaults | dict(config)


@cache
def _table() -> dict[str, dict[str, Any]]:
    return json.loads(TABLE.read_text())


def text() -> str:
    """Contents of ``TABLE``, of the installed transformers."""
    rows = (f'"{kind}": {json.dumps(_row(kind), sort_keys=True)}' for kind in KINDS)
    return "{\n" + ",\n".join(rows) + "\n}\n"


def _row(kind: str) -> dict[str, Any]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    made = CONFIG_MAPPING[kind]
    usual = made().to_dict()
    computed = set()
    for probe in _PROBES:
        seen = made.from_dict(dict(probe)).to_dict()
        computed |= {name for name in READ if name not in probe and seen.get(name) != usual.get(name)}
    # A list is made of other fields, and a field of two names may be given by the other.
    computed |= {name for name in READ if isinstance(usual.get(name), list) and usual[name]}
    computed |= {name for other, name in made.attribute_map.items() if {other, name} & set(READ)}
    given = {name: usual[name] for name in READ if name in usual and name not in computed}
    if set(usual.get("layer_types") or ()) == {_FULL}:  # as layers that are not named
        computed.discard("layer_types")
    rope = usual.get("rope_parameters") or {}
    return {
        "defaults": given,
        "computed": sorted(computed),
        "one_rope": not any(isinstance(value, dict) for value in rope.values()),
    }


if __name__ == "__main__":
    TABLE.write_text(text())
