"""What a soak calls wrong, and what it calls grown."""

from types import SimpleNamespace

import pytest

from sglang_dflash.tools.soak.held import Footprint, growth
from sglang_dflash.tools.soak.judge import Question, ask_plainly, varied
from sglang_dflash.tools.soak.run import Outcome
from sglang_dflash.tools.soak.traffic import Traffic

QUESTION = Question(prompt=(1, 2), answer=(5, 6, 7, 8), runners_up=(9, 9, 4, 9), gaps=(1.0, 1.0, 1e-5, 1.0))


@pytest.mark.parametrize(
    "tokens, place, tie",
    [
        ((5, 6, 7, 8), None, None),
        ((5, 6), None, None),
        ((), None, None),
        ((5, 6, 4, 1), 2, True),
        ((5, 6, 9), 2, False),  # not the runner-up of the tie
        ((5, 9, 7), 1, False),  # the runner-up, but far behind
    ],
)
def test_where_an_answer_differs(tokens, place, tie):
    assert QUESTION.parts_at(tokens) == place
    assert place is None or QUESTION.ties_at(place, tokens[place]) is tie


@pytest.mark.parametrize(
    "tokens, wanted, words",
    [
        ((5, 6, 7), 3, None),
        ((5, 6, 7, 8), 9, None),  # the answer's own end
        ((5, 6, 4), 3, None),
        ((5, 6), None, None),
        ((5, 6), 3, "2 tokens of 4, 3 asked for"),
        ((5, 6, 7, 7), 4, "token 3 is 7 instead of 8"),
    ],
)
def test_an_answer_is_checked(tokens, wanted, words):
    traffic = Traffic(None, [QUESTION], 8, 1, 1)
    traffic._check("whole", QUESTION, tokens, wanted, {"num_retractions": 2})
    assert traffic.wrong == ([] if words is None else [f"whole: {words}"])
    assert traffic.counts["checked"] == 1 and traffic.counts["retractions"] == 2
    assert traffic.counts["ties"] == (tokens == (5, 6, 4))


def test_gaps_come_from_the_two_best_tokens():
    rows = [[(-0.25, 7, None), (-1.5, 3, None)], [(-0.5, 2, None), (-0.5, 9, None)]]
    answer = SimpleNamespace(token_ids=(7, 9), meta={"output_top_logprobs": rows})
    client = SimpleNamespace(generate_many=lambda prompts, concurrency, sampling, **fields: [answer])
    (question,) = ask_plainly(client, [(1, 2)], 2, 1)
    assert question == Question((1, 2), (7, 9), (3, 9), (1.25, 0.0))


def test_prompts_are_varied_and_some_begin_alike():
    prompts = varied([tuple(range(100))], 20, 40, seed=3)
    assert len(prompts) == 20 and len({len(prompt) for prompt in prompts}) > 5
    assert max(map(len, prompts)) <= 40
    beginnings = [prompt[:20] for prompt in prompts[10:]]
    assert len(set(beginnings)) <= 3


def outcome(rss=(100, 100), slots=({"KV": 10}, {"KV": 10}), wrong=()):
    counts = dict.fromkeys(("checked", "ties", "retractions", "whole", "streamed", "hung up", "aborted", "sampled"), 1)
    traffic = SimpleNamespace(wrong=list(wrong), counts=counts | {"refused": 1}, requests=6)
    footprints = [Footprint(at, (rss[0] if at < 70 else rss[1]) << 20, 5, 6) for at in range(100)]
    return Outcome(1.0, traffic, slots, footprints)


def test_growth_compares_the_middle_with_the_end():
    assert growth(outcome(rss=(100, 300)).footprints) == {
        "rss": (100 << 20, 300 << 20),
        "files": (5, 5),
        "threads": (6, 6),
    }


def test_a_sound_outcome_has_no_problems():
    sound = outcome(rss=(1000, 1010))
    assert sound.problems == []
    assert "free KV 10 -> 10" in sound.summary() and "RSS 1000 -> 1010 MiB" in sound.summary()


@pytest.mark.parametrize(
    "given, words",
    [
        (dict(rss=(1000, 1100)), "memory grew from 1000 to 1100 MiB"),
        (dict(slots=({"KV": 10, "states": 4}, {"KV": 10, "states": 3})), "free states: 4 -> 3"),
        (dict(slots=({"KV": 10, "states": 4}, {"KV": 10})), "free states: 4 -> None"),
        (dict(wrong=["whole: token 3 is 1 instead of 2"]), "whole: token 3"),
    ],
)
def test_problems(given, words):
    assert [words in line for line in outcome(**given).problems].count(True) == 1
