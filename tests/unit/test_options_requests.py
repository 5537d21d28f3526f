"""Requests that a round does not serve exactly are refused with the reason; all others pass."""

import subprocess
import sys
from array import array
from types import SimpleNamespace

import pytest
from launching import environment
from sglang.srt.sampling.sampling_params import SamplingParams

from sglang_dflash.plugin.requests import REFUSALS, find_refusal, reason_of


def request(sampling=None, **fields) -> SimpleNamespace:
    """What the refusals read of SGLang's request."""
    plain = {
        "origin_input_ids": [3, 0, 9],
        "multimodal_inputs": None,
        "vocab_size": 10,
    }
    return SimpleNamespace(sampling_params=SamplingParams(**(sampling or {})), **(plain | fields))


def refusal(req) -> str | None:
    row = find_refusal(req)
    return None if row is None else reason_of(row, req)


@pytest.fixture(autouse=True)
def deterministic(monkeypatch) -> SimpleNamespace:
    """SGLang's setting of --enable-deterministic-inference; off."""
    settings = SimpleNamespace(enable_deterministic_inference=False)
    monkeypatch.setattr("sglang.srt.runtime_context.get_exec", lambda: SimpleNamespace(deterministic=settings))
    return settings


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"temperature": 0.0},
        {"temperature": 0.7, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "sampling_seed": 7},
        {"frequency_penalty": 0.1, "presence_penalty": -0.1, "repetition_penalty": 1.1, "min_new_tokens": 2},
        {"stop": ["\n"], "max_new_tokens": 3, "ignore_eos": True, "logit_bias": {"3": 1.0}},
        {"json_schema": "{}", "beam_width": 1},
        {"regex": "a+"},
        {"ebnf": 'root ::= "a"'},
        {"structural_tag": "{}"},
    ],
)
def test_exact_requests_pass(sampling):
    assert refusal(request(sampling)) is None


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (request({"beam_width": 4}), "beam search"),
    ],
)
def test_others_are_refused_with_the_remedy(asked, named):
    reason = refusal(asked)
    assert named in reason and "serve without DFLASH" in reason and "\n" not in reason


def test_min_p_is_refused_where_every_request_has_a_seed(deterministic):
    deterministic.enable_deterministic_inference = True
    reason = "min_p cannot be seeded: drop min_p, or serve without --enable-deterministic-inference."
    assert refusal(request({"min_p": 0.1})) == reason
    assert refusal(request()) is None


@pytest.mark.parametrize("ids", [[3, 10], [-1, 3], [10**6]])
def test_ids_without_an_embedding_are_refused(ids):
    reason = refusal(request(origin_input_ids=ids))
    assert reason == "input_ids hold an id outside the vocabulary of 10: use the target's tokenizer."
    assert refusal(request(origin_input_ids=ids, multimodal_inputs=object())) is None


class Ids(array):
    """As SGLang keeps a prompt; a loop over 128k ids in the scheduler would take milliseconds."""

    def __iter__(self):
        raise AssertionError("looped over")


def test_the_ids_of_a_prompt_are_not_looped_over():
    assert refusal(request(origin_input_ids=Ids("q", [3, 9, 0]))) is None
    assert "outside the vocabulary" in refusal(request(origin_input_ids=Ids("q", [3, -1])))
    assert refusal(request(origin_input_ids=Ids("q"))) == "input_ids are empty: use at least one token."
    assert refusal(request(origin_input_ids=Ids("q"), multimodal_inputs=object())) is None


def test_every_feature_is_told_once():
    features = [row.feature for row in REFUSALS]
    assert len(set(features)) == len(features)


HOOKED = """
import os
from types import SimpleNamespace
import sglang.srt.managers.scheduler as scheduler
from sglang.srt.runtime_context import get_parallel
from sglang.srt.sampling.sampling_params import SamplingParams
from sglang_dflash.host import metrics_api
from sglang_dflash.plugin import registration, requests

metrics_api.metrics_label = lambda: None

def req_of(**sampling):
    return SimpleNamespace(sampling_params=SamplingParams(**sampling), 
        origin_input_ids=[1], multimodal_inputs=None, vocab_size=2,
        return_hidden_states=False)

def ask(**sampling):
    return scheduler.validate_dflash_request(req_of(**sampling), True)

def choose(worker, counts):
    os.environ.update(SGLANG_DFLASH_WORKER=worker, SGLANG_DFLASH_COUNTS=counts)
    server_args = SimpleNamespace(speculative_draft_model_path="not/here", speculative_draft_model_revision=None)
    with get_parallel().override(attn_dp_enabled=False):
        builtin = type("Builtin", (), {})
        return registration._create_worker(lambda *_: builtin, SimpleNamespace(is_dflash=lambda: True), server_args)

choose("builtin", "")
# Wrapped, it is a class of our own module.
assert choose("builtin", "/dev/null").__module__.startswith("sglang_dflash")
assert ask(beam_width=2) is None
choose("dflash", "/dev/null")
assert "beam" in ask(beam_width=2)
assert ask() is None
counted = []
assert "beam" in requests._validate(counted.append, None, req_of(beam_width=2), True)
assert counted == ["beam search"]
print("hooked")
"""


def test_the_scheduler_asks_us_where_our_worker_serves():
    run = subprocess.run(
        [sys.executable, "-c", HOOKED],
        env=environment() | {"SGLANG_PLUGINS": "none"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.stdout.strip().endswith("hooked"), run.stderr[-4000:]
