"""The bare pass against transformers, and the clock of a served step."""

import json
from types import SimpleNamespace

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from sglang_dflash.cpu.stepclock import StepClock
from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.bench import stepcost
from sglang_dflash.tools.bench.bare import BareQwen3


@pytest.mark.parametrize("tied", [True, False])
def test_the_bare_pass_equals_transformers(tied, tmp_path):
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=90,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        pad_token_id=None,
        eos_token_id=None,
    )
    model = Qwen3ForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    expected = model.generate(torch.tensor([stepcost.PROMPT]), max_new_tokens=20, do_sample=False)
    times, produced = stepcost.bare_turn(BareQwen3(str(tmp_path), 64), 20)
    assert produced == expected[0, len(stepcost.PROMPT) :].tolist()
    assert len(times) == 19 and all(wall >= 0 and cpu >= 0 for wall, cpu in times)


def test_the_bare_pass_refuses_another_model(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(DFlashError, match="target: is a llama model"):
        BareQwen3(str(tmp_path), 8)


def batch(decode: bool):
    return SimpleNamespace(forward_mode=SimpleNamespace(is_decode=lambda: decode))


def test_the_clock_times_decode_steps_that_follow_each_other(tmp_path):
    path = tmp_path / "steps.jsonl"
    clock = StepClock(lambda ids, positions, forward_batch: int(ids.sum()), str(path))
    one, two = torch.tensor([1]), torch.tensor([1, 1])
    calls = [(two, False), (one, True), (one, True), (two, True), (two, True), (one, True), (one, False)]
    for ids, decode in calls:
        assert clock(ids, None, batch(decode)) == len(ids)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["requests"] for row in rows] == [1, 2]
    assert all(row["step_ms"] >= row["forward_ms"] >= 0 for row in rows)
    assert all(row["step_cpu_ms"] >= row["forward_cpu_ms"] >= 0 for row in rows)


def test_the_fastest_twentieth():
    assert stepcost.fastest(range(100, 0, -1)) == 6


def test_the_ratios():
    cost = stepcost.StepCost(1, 0.9, 0.8, 2, 1.8, 1.5, 1.2, 1, 1, 0.9, True)
    assert (cost.ratio, cost.ratio_served) == (1.8, 2)
    assert (cost.ratio_cpu, cost.ratio_best) == (1.5 / 0.9, 1.2 / 0.8)
    assert stepcost.table_of(cost).row_count == 7
