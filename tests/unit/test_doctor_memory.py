"""Memory figures of the check: parameters, KV and state sizes against transformers and SGLang themselves."""

import dataclasses
import json

import published_drafts
import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from sglang_dflash.checkpoints.checks.case import Case, Plan
from sglang_dflash.checkpoints.config import parse_draft_config
from sglang_dflash.tools.doctor.layers import FULL, SLIDING, STATE, layer_kinds, read_layers
from sglang_dflash.tools.doctor.machine import Machine, simulated
from sglang_dflash.tools.doctor.memory import (
    CPU_STATE_SLOTS,
    _scratch_bytes,
    _state_bytes,
    budget,
    fraction,
    gib,
    kv_item,
    kv_room,
    reserved,
)
from sglang_dflash.tools.doctor.reading import _draft_bytes, completed
from sglang_dflash.tools.doctor.weights import estimated_bytes, parameters, stored_bytes

NEMOTRON = {
    "layers_block_type": ["linear_attention", "moe"] * 23 + ["full_attention"] * 6,
    "hidden_size": 2688,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "n_routed_experts": 128,
    "moe_intermediate_size": 1856,
    "moe_shared_expert_intermediate_size": 3712,
    "mamba_num_heads": 64,
    "mamba_head_dim": 64,
}
# (model type, fields, billions of parameters): the shapes of published targets, where the class's defaults are those.
FAMILIES = [
    ("qwen3", {"num_hidden_layers": 36, "intermediate_size": 12288, "num_key_value_heads": 8}, 8.19),  # Qwen3-8B
    ("llama", {}, 6.74),
    ("qwen3_moe", {}, 15.35),
    ("qwen3_5_text", {}, 8.95),  # Qwen3.5-9B
    ("qwen3_5_moe_text", {}, 34.7),  # Qwen3.5-35B-A3B
    ("qwen3_next", {}, 79.7),  # Qwen3-Coder-Next
    ("gpt_oss", {}, 116.8),  # gpt-oss-120b
    ("gemma4_text", {}, None),
    ("minimax_m2", {}, 228.7),  # MiniMax-M2.5
    ("laguna", {}, None),
    ("nemotron_h", NEMOTRON, 31.6),
    ("deepseek_v3", {}, 671),
    ("kimi_linear", {}, None),
    ("glm_moe_dsa", {}, 744),
]


@pytest.mark.parametrize(("kind", "fields", "billions"), FAMILIES, ids=[row[0] for row in FAMILIES])
def test_estimated_parameters_are_the_models(kind, fields, billions):
    config = CONFIG_MAPPING[kind](**fields)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    real = sum(each.numel() for each in model.parameters())
    assert sum(parameters(config.to_dict())) == pytest.approx(real, rel=0.015)
    if billions:
        assert real / 1e9 == pytest.approx(billions, rel=0.01)


def test_bytes_follow_the_format():
    raw = json.loads(CONFIG_MAPPING["qwen3"](dtype="bfloat16").to_json_string(use_diff=False))
    full = estimated_bytes(raw)
    assert full == 2 * sum(parameters(raw))
    ends = parameters(raw)[0]
    for config, bits in (
        ({"quant_method": "fp8"}, 8),
        ({"quant_method": "awq", "bits": 4}, 4),
        ({"quant_method": "compressed-tensors", "config_groups": {"0": {"weights": {"num_bits": 4}}}}, 4),
        ({"quant_method": "modelopt_fp4"}, 4.5),
    ):
        quantised = estimated_bytes(raw | {"quantization_config": config})
        assert quantised == pytest.approx(2 * ends + (full / 2 - ends) * bits / 8)


def test_stored_bytes(tmp_path):
    assert stored_bytes(tmp_path) is None
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 7}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})
    )
    assert stored_bytes(tmp_path) == 7
    for name in ("1.safetensors", "2.safetensors"):
        (tmp_path / name).write_bytes(bytes(10))
    assert stored_bytes(tmp_path) == 20


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ({"num_hidden_layers": 2}, (FULL, FULL)),
        ({"layer_types": ["linear_attention", "sliding_attention"]}, (STATE, SLIDING)),
        ({"hybrid_override_pattern": "M*E-"}, (STATE, FULL, "nothing", "nothing")),
        ({"num_hidden_layers": 3, "linear_attn_config": {"kda_layers": [1, 2]}}, (STATE, STATE, FULL)),
    ],
)
def test_kinds_of_layers(text, kinds):
    assert layer_kinds(text) == kinds


def test_kv_of_one_token():
    qwen = read_layers(CONFIG_MAPPING["qwen3"](num_hidden_layers=36, num_key_value_heads=8).to_dict())
    assert [qwen.kv_per_token(FULL, ranks) for ranks in (1, 2, 16)] == [36 * 8 * 256, 36 * 4 * 256, 36 * 256]
    latent = read_layers(CONFIG_MAPPING["deepseek_v3"]().to_dict())
    assert [latent.kv_per_token(FULL, ranks) for ranks in (1, 8)] == [61 * 576] * 2
    sinks = read_layers(CONFIG_MAPPING["gpt_oss"]().to_dict())
    assert sinks.kv_per_token(FULL, 1) == sinks.kv_per_token(SLIDING, 1) == 18 * 8 * 128 and sinks.window == 128
    gemma = CONFIG_MAPPING["gemma4_text"]().to_dict()
    # Heads of full layers are twice as wide.
    assert read_layers(gemma).kv_per_token(FULL, 1) == 5 * 4 * 2 * 512
    assert read_layers(gemma).kv_per_token(SLIDING, 1) == 25 * 4 * 2 * 256


def test_state_sizes_are_sglangs():
    from sglang.srt.configs.mamba_utils import KimiLinearStateShape, Mamba2StateShape

    gdn = read_layers(CONFIG_MAPPING["qwen3_5_text"]().to_dict()).state
    ours = Mamba2StateShape.create(
        tp_world_size=1,
        intermediate_size=32 * 128,
        n_groups=16,
        num_heads=32,
        head_dim=128,
        state_size=128,
        conv_kernel=4,
    )
    assert gdn.temporal == torch.Size(ours.temporal).numel()
    assert [(gdn.conv_channels, gdn.conv_width)] == ours.conv
    mamba = read_layers(CONFIG_MAPPING["nemotron_h"](**NEMOTRON).to_dict()).state
    theirs = Mamba2StateShape.create(
        tp_world_size=1, intermediate_size=64 * 64, n_groups=8, num_heads=64, head_dim=64, state_size=128, conv_kernel=4
    )
    assert mamba.temporal == torch.Size(theirs.temporal).numel()
    assert [(mamba.conv_channels, mamba.conv_width)] == theirs.conv
    kda = read_layers(CONFIG_MAPPING["kimi_linear"]().to_dict()).state
    shape = KimiLinearStateShape.create(tp_world_size=1, num_heads=32, head_dim=128, conv_kernel_size=4)
    assert kda.temporal == torch.Size(shape.temporal).numel()
    assert kda.conv_channels * kda.conv_width == sum(torch.Size(each).numel() for each in shape.conv)


def hybrid_case(**plan) -> Case:
    target = completed({"model_type": "qwen3_5_text", "dtype": "bfloat16"})
    raw = {
        "architectures": ["DFlashDraftModel"],
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_hidden_layers": 5,
        "num_key_value_heads": 8,
        "intermediate_size": 12288,
        "head_dim": 128,
        "block_size": 16,
        "dflash_config": {"mask_token_id": 248070, "target_layer_ids": [1, 8, 15, 22, 29]},
    }
    return Case(target, parse_draft_config(raw), raw, "", Plan(**plan))


def parts(case: Case, machine=None) -> dict[str, int]:
    machine = machine or simulated("9.0", 80, 1)
    result = budget(case, read_layers(case.text), (100, 10), machine, case.plan.context_length)
    return {part.name: part.size for part in result.parts}


def test_state_buffers_grow_with_the_verify_width():
    """Qwen3.5-9B: 24 layers of [32, 128, 128] float32, and 8192 channels of 3 bfloat16 inputs."""
    temporal, channels = 24 * 32 * 128 * 128 * 4, 24 * 8192 * 2
    for width in (1, 8, 16):
        found = parts(hybrid_case(block_size=width, context_length=1000, concurrency=4))
        assert found["recurrent state"] == (4 * 5 + 1) * (temporal + 3 * channels)
        assert found["state of drafted positions"] == 5 * (width * temporal + (width + 2) * channels)
    lazy = parts(hybrid_case(context_length=1000, concurrency=4, mamba="extra_buffer_lazy"))
    assert lazy["recurrent state"] == (4 * 4 + 1) * (temporal + 3 * channels)


@pytest.mark.parametrize("tree", [False, True])
@pytest.mark.parametrize("width", [1, 4, 16])
def test_state_buffers_are_what_sglangs_pool_allocates(width, tree):
    """Measured: the tensors of its pool, for a small model, two requests, twelve states."""
    from sglang.srt.configs.mamba_utils import Mamba2CacheParams, Mamba2StateDType, Mamba2StateShape
    from sglang.srt.mem_cache import memory_pool

    text = completed(
        {
            "model_type": "qwen3_5_text",
            "num_hidden_layers": 4,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 8,
            "dtype": "bfloat16",
        }
    )
    shape = Mamba2StateShape.create(
        tp_world_size=1, intermediate_size=32, n_groups=2, num_heads=4, head_dim=8, state_size=16, conv_kernel=4
    )
    pool = memory_pool.MambaPool(
        size=12,
        spec_state_size=2,
        cache_params=Mamba2CacheParams(
            shape=shape, layers=[0, 1, 2], dtype=Mamba2StateDType(conv=torch.bfloat16, temporal=torch.float32)
        ),
        mamba_layer_ids=[0, 1, 2],
        device="cpu",
        speculative_num_draft_tokens=width,
        speculative_eagle_topk=2 if tree else 1,
    )
    cache = pool.mamba_cache
    states = sum(each.nbytes for each in (*cache.conv, cache.temporal))
    scratch = sum(each.nbytes for each in (*pool._intermediate_conv_window_phys, cache.intermediate_ssm))
    case = dataclasses.replace(hybrid_case(block_size=width), target=text)
    layers = read_layers(text)
    assert states == 13 * _state_bytes(case, layers)
    on_host = dataclasses.replace(case, plan=Plan(block_size=width, on_cpu=tree, dtype="bfloat16"))
    assert scratch == 3 * _scratch_bytes(on_host, layers, width)


def test_the_cpu_platforms_states():
    from sglang_dflash.cpu.recurrent.arguments import CACHED

    assert CPU_STATE_SLOTS == CACHED
    found = parts(hybrid_case(concurrency=4, on_cpu=True, dtype="float32"), Machine("CPU", 0, 1 << 40))
    temporal, channels = 24 * 32 * 128 * 128 * 4, 24 * 8192 * 4
    assert found["recurrent state"] == (4 * 8 + 1) * (temporal + 3 * channels)
    assert found["state of drafted positions"] == 5 * 16 * (temporal + 3 * channels)


def test_ranks_share_what_can_be_shared():
    one, two = (parts(hybrid_case(context_length=1000, concurrency=4, tp_size=ranks)) for ranks in (1, 2))
    assert {name: one[name] / two[name] for name in one} == {name: 2 for name in one}


def test_kv_cache_formats():
    assert [kv_item(hybrid_case(kv_dtype=name)) for name in ("auto", "fp8_e4m3", "bf16")] == [2, 1, 2]
    assert kv_item(hybrid_case(dtype="float32")) == 4
    half, whole = (parts(hybrid_case(context_length=1000, kv_dtype=name)) for name in ("fp8_e4m3", "bf16"))
    assert 2 * half["target KV"] == whole["target KV"]
    assert half["draft KV"] == whole["draft KV"]  # a quantised cache is the target's alone


def test_pages_round_up():
    one, big = (parts(hybrid_case(context_length=1000, concurrency=1, page_size=page)) for page in (1, 64))
    assert big["target KV"] * 1016 == one["target KV"] * 1024


def test_fraction_leaves_what_sglang_leaves():
    machine, case = simulated("9.0", 80, 1), hybrid_case(context_length=1000)
    result = budget(case, read_layers(case.text), (20 << 30, 2 << 30), machine)
    assert fraction(result, machine, 0.75) == 0.75
    largest = fraction(result, machine, None)
    assert largest == pytest.approx(1 - reserved(machine, 1) / machine.memory, abs=0.01)
    full = budget(case, read_layers(case.text), (60 << 30, 2 << 30), machine)
    assert fraction(full, machine, 0.75) == largest
    assert fraction(full, Machine("CPU", 0, 1 << 30), 0.75) is None


def test_room_for_tokens():
    machine, case = simulated("9.0", 80, 1), hybrid_case(context_length=1000)
    result = budget(case, read_layers(case.text), (20 << 30, 2 << 30), machine)
    others = sum(part.size for part in result.parts if "KV" not in part.name)
    # 8 full layers of 4 heads, 256 channels; 5 draft layers of 8 heads, 128 channels; bfloat16.
    per_token = 8 * 4 * 512 * 2 + 5 * 8 * 256 * 2
    assert kv_room(result, machine, 0.75) == int((0.75 * machine.memory - others) / per_token)
    assert kv_room(result, machine, 0.01) == 0 and kv_room(result, machine, None) is None


PUBLISHED_SIZES = {
    "gpt-oss-20b-DFlash": 1.46,
    "gemma-4-31B-it-DFlash": 2.86,
    "Qwen3.8-27B-DFlash2": 3.85e9 / 2**30,
}


@pytest.mark.parametrize(("name", "published"), PUBLISHED_SIZES.items())
def test_drafts_have_their_published_sizes(name, published, tmp_path):
    """In GiB, from their configs alone."""
    raw, _ = published_drafts.ALL[name]
    case = dataclasses.replace(hybrid_case(), draft=parse_draft_config(raw), raw=raw)
    assert _draft_bytes(case) / 2**30 == pytest.approx(published, abs=0.006)


@pytest.mark.parametrize(("size", "words"), [(512, "0.5 KiB"), (5 << 20, "5.0 MiB"), (3 << 30, "3.00 GiB")])
def test_sizes_in_words(size, words):
    assert gib(size) == words
