"""Fuzz without servers: what is drawn, what is called wrong, how a failing round is made small."""

import random
from dataclasses import replace

import pytest

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.fuzz.cli import chosen_features
from sglang_dflash.tools.fuzz.features import FEATURES, Draw
from sglang_dflash.tools.fuzz.judge import Verdict, judge
from sglang_dflash.tools.fuzz.requests import Outcome, Request, draw_request
from sglang_dflash.tools.fuzz.shrink import shrink
from sglang_dflash.tools.serve.client import generation_of

PROMPTS = [(1, 2, 3), (4,)]
NAMES = {feature.name: feature for feature in FEATURES}
GREEDY = Request((1, 2), {"temperature": 0.0, "max_new_tokens": 8}, {}, ())


def drawn(seed: int) -> Request:
    return draw_request(random.Random(seed), PROMPTS, FEATURES, 800, 64)


def answer(ids, text="ab", reason="length", **meta) -> Outcome:
    meta = {"finish_reason": {"type": reason}, "prompt_tokens": 2, "completion_tokens": len(ids), **meta}
    return Outcome(generation_of({"output_ids": list(ids), "text": text, "meta_info": meta}))


def best(*places) -> list:
    """Log-probabilities by token, place by place, as SGLang's rows."""
    return [[(value, token, None) for token, value in place.items()] for place in places]


def test_a_seed_draws_the_same_requests_and_lines_hold_all_of_them():
    for seed in range(200):
        request = drawn(seed)
        assert request == drawn(seed) == Request.read(request.written())


def test_every_feature_is_drawn_and_excluded_ones_are_not_together():
    requests = [drawn(seed) for seed in range(600)]
    assert {name for request in requests for name in request.features} == set(NAMES)
    for request in requests:
        for name in request.features:
            assert not set(NAMES[name].excludes) & set(request.features) - {name}


@pytest.mark.parametrize("name", NAMES)
def test_a_feature_names_what_it_adds_so_that_it_can_be_taken_away(name):
    feature = NAMES[name]
    for seed in range(20):
        draw = Draw(random.Random(seed), 800, 12)
        sampling, fields = feature.sampling(draw), feature.fields(draw)
        assert set(sampling) <= set(feature.sampling_names) and set(fields) <= set(feature.field_names)
        both = replace(GREEDY, sampling=GREEDY.sampling | sampling, fields=fields, features=(name,))
        assert both.without(feature) == GREEDY


@pytest.mark.parametrize(
    ("request_", "plain", "other", "verdict", "what"),
    [
        (GREEDY, answer([5, 6]), answer([5, 6]), Verdict.SAME, ""),
        (GREEDY, answer([5, 6]), answer([5, 7]), Verdict.WRONG, "token 1 is 7 instead of 6"),
        (GREEDY, answer([5, 6]), answer([5]), Verdict.WRONG, "token 1 is None instead of 6"),
        (GREEDY, answer([5, 6]), answer([5, 6], "ax"), Verdict.WRONG, "the text is 'ax'"),
        (GREEDY, answer([5, 6]), answer([5, 6], reason="stop"), Verdict.WRONG, "ended by"),
        (GREEDY, answer([5]), answer([5], prompt_tokens=3), Verdict.WRONG, "prompt_tokens is 3 instead of 2"),
        (GREEDY, answer([5]), Outcome(refusal="refused with 400: no"), Verdict.REFUSED, "no"),
        (GREEDY, Outcome(refusal="refused"), answer([5]), Verdict.WRONG, "served, where plain decoding refuses"),
        (GREEDY, Outcome(refusal="refused"), Outcome(refusal="not"), Verdict.SAME, ""),
        (replace(GREEDY, hangs_up=True), answer([5, 6, 7]), answer([5, 6], "a"), Verdict.SAME, ""),
        (replace(GREEDY, hangs_up=True), answer([5, 6, 7]), answer([5, 8], "a"), Verdict.WRONG, "token 1 is 8"),
    ],
)
def test_verdicts(request_, plain, other, verdict, what):
    finding = judge(request_, plain, other)
    assert finding.verdict is verdict and what in finding.what


@pytest.mark.parametrize(("gap", "verdict"), [(5e-5, Verdict.TIE), (2e-4, Verdict.WRONG)])
def test_two_tokens_that_plain_decoding_can_hardly_tell_apart_are_a_tie(gap, verdict):
    rows = best({5: -0.1}, {6: -1.0, 7: -1.0 - gap, 8: -9.0})
    assert judge(GREEDY, answer([5, 6], output_top_logprobs=rows), answer([5, 7])).verdict is verdict
    # Of a token that is not among the best, nothing is known.
    assert judge(GREEDY, answer([5, 6], output_top_logprobs=rows), answer([5, 9])).verdict is Verdict.WRONG


def test_with_a_seed_noise_goes_by_rank_which_a_tie_with_any_other_token_changes():
    seeded = replace(GREEDY, sampling={"temperature": 1.0, "max_new_tokens": 8, "sampling_seed": 3, "top_k": 8})
    tied, apart = best({6: -1.0, 9: -1.00002, 7: -2.0}), best({6: -1.0, 9: -1.2, 7: -2.0})
    assert judge(seeded, answer([6], output_top_logprobs=tied), answer([7])).verdict is Verdict.TIE
    assert judge(seeded, answer([6], output_top_logprobs=apart), answer([7])).verdict is Verdict.WRONG
    assert judge(GREEDY, answer([6], output_top_logprobs=tied), answer([7])).verdict is Verdict.WRONG


LOGPROBS = replace(GREEDY, fields={"return_logprob": True, "top_logprobs_num": 2})


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({}, "output_token_logprobs has 0 places instead of 1"),
        ({"output_token_logprobs": [(-0.5, 5, None)]}, "output_token_logprobs at 0: -0.5 of 5 instead of -0.1 of 5"),
        (
            {"output_token_logprobs": [(-0.1, 5, None)], "output_top_logprobs": best({5: -0.1, 6: -1.0})},
            "output_top_logprobs at 0: -1.0 of 6 instead of -3.0 of 6",
        ),
        ({"output_token_logprobs": [(-0.1, 5, None)], "output_top_logprobs": best({5: -0.1, 7: -3.0})}, None),
    ],
)
def test_log_probabilities_are_compared_by_value_and_the_best_up_to_ties(given, what):
    plain = answer([5], output_token_logprobs=[(-0.1, 5, None)], output_top_logprobs=best({5: -0.1, 6: -3.0, 8: -4.0}))
    finding = judge(LOGPROBS, plain, answer([5], **given))
    assert (finding.what == what) if what else finding.verdict is Verdict.SAME


@pytest.mark.parametrize(
    ("states", "verdict"),
    [
        ([[[1.0, 2.0]], [3.0, 4.0]], Verdict.SAME),
        ([[[1.0, 2.0]], [3.0, 4.1]], Verdict.WRONG),
        ([[[1.0, 2.0]]], Verdict.WRONG),
    ],
)
def test_hidden_states_of_prompt_and_steps(states, verdict):
    asked = replace(GREEDY, fields={"return_hidden_states": True})
    plain = answer([5], hidden_states=[[[1.0, 2.0]], [3.0, 4.0]])
    assert judge(asked, plain, answer([5], hidden_states=states)).verdict is verdict


@pytest.mark.parametrize(
    ("grammar", "text", "reason", "fine"),
    [
        ({"regex": "[a-z]{2}"}, "ab", "stop", True),
        ({"regex": "[a-z]{2}"}, "abc", "stop", False),
        ({"regex": "[a-z]{2}"}, "a", "length", True),
        ({"json_schema": '{"type": "integer"}'}, "12", "stop", True),
        ({"json_schema": '{"type": "integer"}'}, '"a"', "stop", False),
        ({"json_schema": '{"type": "integer"}'}, "{", "stop", False),
        ({"regex": "[a-z]+", "no_stop_trim": True, "skip_special_tokens": False}, "ab<|end|>", "stop", True),
        ({"regex": "[a-z]+", "no_stop_trim": True}, "ab<|end|>", "stop", False),
    ],
)
def test_a_whole_answer_keeps_to_its_grammar(grammar, text, reason, fine):
    asked = replace(GREEDY, sampling=GREEDY.sampling | grammar)
    finding = judge(asked, answer([5], text, reason), answer([5], text, reason))
    assert (finding.verdict is Verdict.SAME) == fine


def test_a_failing_round_is_made_small():
    """It fails while two companions are there, a feature is asked for and the answer has ten tokens or more."""
    needed = [replace(GREEDY, prompt=(n,)) for n in (11, 12)]
    others = [replace(GREEDY, prompt=(n,)) for n in range(20, 40)]
    others[3:3], others[15:15] = needed[:1], needed[1:]
    sampling = GREEDY.sampling | {"max_new_tokens": 90, "presence_penalty": 1.0, "stop": ["a"]}
    failing = Request(tuple(range(50)), sampling, {}, ("presence penalty", "stop"))

    def fails(requests) -> bool:
        first, *rest = requests
        return (
            "presence_penalty" in first.sampling
            and first.sampling["max_new_tokens"] >= 10
            and all(request in rest for request in needed)
        )

    small, *companions = shrink(failing, others, fails, tries=200)
    assert companions == needed
    assert small.features == ("presence penalty",) and "stop" not in small.sampling
    assert small.sampling["max_new_tokens"] == 11 and len(small.prompt) == 6


def test_one_that_fails_alone_keeps_nobody():
    assert shrink(GREEDY, [GREEDY] * 9, lambda requests: True)[1:] == ()


def test_features_are_chosen_by_name():
    assert [f.name for f in chosen_features("stop,regex", "regex")] == ["stop"]
    assert len(chosen_features("", "")) == len(FEATURES)
    with pytest.raises(DFlashError, match="--only: is 'rhymes'"):
        chosen_features("rhymes", "")
