"""What the CPU platform fills in for hybrid models, through SGLang's own resolution."""

import json

import pytest
from launching import launch

PLAIN = dict(
    architectures=["Qwen3ForCausalLM"],
    model_type="qwen3",
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    vocab_size=128,
    max_position_embeddings=256,
    dtype="float32",
)
HYBRID = PLAIN | dict(
    architectures=["Qwen3NextForCausalLM"],
    model_type="qwen3_next",
    num_hidden_layers=4,
    full_attention_interval=4,
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=16,
    linear_value_head_dim=8,
)
SHORT_CONV = PLAIN | dict(architectures=["Lfm2ForCausalLM"], model_type="lfm2", layer_types=["conv", "full_attention"])


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    paths = {}
    for name, config in (("hybrid", HYBRID), ("plain", PLAIN), ("short", SHORT_CONV)):
        paths[name] = folder / name
        paths[name].mkdir()
        (paths[name] / "config.json").write_text(json.dumps(config))
    hybrid = ["--model-path", str(paths["hybrid"])]
    cases = {
        "plain": ["--model-path", str(paths["plain"])],
        "short": ["--model-path", str(paths["short"])],
        "defaults": hybrid,
        "alone": [*hybrid, "--disable-radix-cache", "--max-running-requests", "5"],
        "ranks": [*hybrid, "--tp-size", "2"],
        "explicit": [*hybrid, "--max-mamba-cache-size", "7"],
        "extra": [*hybrid, "--mamba-scheduler-strategy", "extra_buffer", "--page-size", "4"],
    }
    return dict(zip(cases, launch([(argv, {}) for argv in cases.values()], resolve=True), strict=True))


@pytest.fixture(scope="module")
def fields(outcomes):
    served = {name: outcome for name, outcome in outcomes.items() if name != "short"}
    assert {outcome.error for outcome in served.values()} == {None}
    return {name: outcome.fields for name, outcome in served.items()}


def test_other_kinds_of_recurrent_layers_are_refused_in_one_line(outcomes):
    assert outcomes["short"].error == (
        "DFlashError: model: has recurrent layers that the CPU platform has no operators for (use an accelerator)"
    )


def test_states_are_for_the_requests_that_run(fields):
    sizes = {name: case["max_mamba_cache_size"] for name, case in fields.items()}
    assert sizes == {"plain": None, "defaults": 384, "alone": 5, "ranks": 384, "explicit": 7, "extra": 384}


def test_strategies(fields):
    assert fields["defaults"]["mamba_radix_cache_strategy"] == "no_buffer"
    assert fields["extra"]["mamba_radix_cache_strategy"] == "extra_buffer"


def test_convolution_states_keep_a_float32_models_precision(monkeypatch):
    from sglang.srt.environ import envs

    from sglang_dflash.cpu.host.recurrent_arguments import keep_conv_dtype

    monkeypatch.setenv("SGLANG_MAMBA_CONV_DTYPE", "")  # so that what follows is undone
    monkeypatch.delenv("SGLANG_MAMBA_CONV_DTYPE")
    keep_conv_dtype("float32")
    assert envs.SGLANG_MAMBA_CONV_DTYPE.get() == "float32"
    monkeypatch.setenv("SGLANG_MAMBA_CONV_DTYPE", "bfloat16")
    keep_conv_dtype("float32")
    assert envs.SGLANG_MAMBA_CONV_DTYPE.get() == "bfloat16"
