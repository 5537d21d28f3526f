"""What the CPU platform fills in where the user gave no argument, through SGLang's own resolution."""

import json
from types import SimpleNamespace

import pytest
import torch
from launching import launch

from sglang_dflash.cpu.defaults import MAX_TOKENS, default_kv_tokens, kv_row_bytes


def checkpoint(folder, dtype: str):
    """A Qwen3 config without weights."""
    folder.mkdir()
    config = dict(
        architectures=["Qwen3ForCausalLM"],
        model_type="qwen3",
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=128,
        vocab_size=300,
        max_position_embeddings=512,
        dtype=dtype,
    )
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    full, half = checkpoint(folder / "full", "float32"), checkpoint(folder / "half", "bfloat16")
    explicit = ["--dtype", "bfloat16", "--max-total-tokens", "2048", "--max-running-requests", "3"]
    cases = {
        "defaults": ["--model-path", full],
        "bfloat16": ["--model-path", half],
        "explicit": ["--model-path", full, *explicit, "--attention-backend", "torch_native"],
        "eagle": ["--model-path", full, "--speculative-algorithm", "EAGLE"],
        "adapters": ["--model-path", full, "--enable-lora", "--max-lora-rank", "8", "--lora-target-modules", "all"],
        "adapter paths": ["--model-path", full, "--lora-paths", "a=/nowhere"],
        "host cache": ["--model-path", full, "--enable-hierarchical-cache"],
        "unified": ["--model-path", full, "--enable-unified-memory"],
    }
    return dict(zip(cases, launch([(argv, {}) for argv in cases.values()], resolve=True), strict=True))


def test_a_model_path_is_enough(outcomes):
    fields = outcomes["defaults"].fields
    assert fields["device"] == "cpu"
    assert fields["attention_backend"] == "dflash_cpu"
    assert fields["sampling_backend"] == "pytorch"
    assert fields["dtype"] == "float32"
    assert 1024 <= fields["max_total_tokens"] <= MAX_TOKENS
    assert fields["max_running_requests"] == 48
    assert fields["disable_overlap_schedule"] is True
    assert fields["cuda_graph_backend_decode"] == fields["cuda_graph_backend_prefill"] == "disabled"


def test_a_bfloat16_checkpoint_stays_bfloat16(outcomes):
    assert outcomes["bfloat16"].fields["dtype"] == "auto"


def test_explicit_arguments_win(outcomes):
    fields = outcomes["explicit"].fields
    assert fields["dtype"] == "bfloat16"
    assert fields["max_total_tokens"] == 2048
    assert fields["max_running_requests"] == 3
    assert fields["attention_backend"] == "torch_native"


def test_what_needs_a_gpu_is_refused_in_one_line(outcomes):
    for name, flag in (
        ("adapters", "--enable-lora"),
        ("adapter paths", "--lora-paths"),
        ("host cache", "--enable-hierarchical-cache"),
    ):
        error = outcomes[name].error
        assert error.startswith(f"DFlashError: {flag}: does not run on the CPU platform, "), (name, error)
        assert error.endswith("(leave it out)") and "\n" not in error


def test_other_speculative_algorithms_are_refused_in_one_line(outcomes):
    assert outcomes["eagle"].error == (
        "DFlashError: --speculative-algorithm: EAGLE does not run on the CPU platform (use DFLASH)"
    )


def test_unified_pools_are_refused_in_one_line(outcomes):
    assert outcomes["unified"].error == (
        "DFlashError: --enable-unified-memory: does not run on the CPU platform (drop it)"
    )


@pytest.mark.parametrize(
    "row_bytes, ranks, free_gb, tokens",
    [(4096, 1, 16, MAX_TOKENS), (229376, 1, 16, 18432), (229376, 2, 16, 9216), (1 << 20, 1, 1, 1024)],
)
def test_the_kv_pool_is_bounded_by_memory(row_bytes, ranks, free_gb, tokens):
    assert default_kv_tokens(row_bytes, ranks, free_gb << 30) == tokens


def test_kv_row_bytes():
    model = SimpleNamespace(
        head_dim=16,
        v_head_dim=8,
        num_hidden_layers=3,
        dtype=torch.bfloat16,
        get_num_kv_heads=lambda ranks: 4 // ranks,
    )
    assert kv_row_bytes(model, 2) == 3 * 2 * (16 + 8) * 2
