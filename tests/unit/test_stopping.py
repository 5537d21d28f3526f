"""Where an answer ends, compared on SGLang's own request: tokens one at a time, and many in a round."""

import random

import pytest
from sglang.srt.managers.schedule_batch import Req
from sglang.srt.sampling.sampling_params import SamplingParams

from sglang_dflash.plugin.stopping import _update_finish_state

TEXTS = ("a", "b", "ab", "1", " ", "ba", "<end>", "x1")
END = 6


class Tokenizer:
    """Joins texts, as far as ends are concerned."""

    eos_token_id = END
    additional_stop_token_ids = None

    def decode(self, ids) -> str:
        return "".join(TEXTS[token] for token in ids)

    def encode(self, text, **_) -> list[int]:
        return [0] * len(text)


class Grammar:
    """Ends with the ``length``-th token; has seen all that was emitted, as SGLang's in a round."""

    def __init__(self, length: int):
        self.seen, self._length = 0, length

    def is_terminated(self) -> bool:
        return self.seen >= self._length


def request(grammar: int | None = None, **sampling) -> Req:
    params = SamplingParams(**sampling)
    params.normalize(Tokenizer())
    req = Req("0", "", [1, 2, 3], params, eos_token_ids={END}, vocab_size=len(TEXTS))
    req.tokenizer = Tokenizer()
    req.grammar = None if grammar is None else Grammar(grammar)
    return req


def emit(req: Req, tokens: list[int], rounds: list[int]) -> None:
    """All ``tokens``, so many in each round, until the request ends."""
    for count in rounds:
        new, tokens = tokens[:count], tokens[count:]
        if req.grammar is not None:
            # SGLang cuts a round behind the grammar's end.
            new = new[: req.grammar._length - req.grammar.seen]
            req.grammar.seen += len(new)
        if not new or req.finished():
            return
        req.output_ids.extend(new)
        _update_finish_state(Req.update_finish_state, req, len(new))


def end_of(req: Req) -> tuple:
    reason = None if req.finished_reason is None else req.finished_reason.to_json()
    length = len(req.output_ids_through_stop)
    return reason, list(req.output_ids[:length])


def drawn(rng: random.Random) -> dict:
    stops = ["ab", "1", "b1", "a a", "bb", "x"]
    return {
        "max_new_tokens": rng.choice([5, 9, 30]),
        "stop": rng.sample(stops, rng.randint(1, 3)) if rng.random() < 0.7 else None,
        "stop_regex": rng.choice(["[0-9]a", "b+$", "^1", "a.b"]) if rng.random() < 0.5 else None,
        "stop_token_ids": rng.sample(range(len(TEXTS)), 2) if rng.random() < 0.5 else None,
        "ignore_eos": rng.random() < 0.2,
        "grammar": rng.choice([None, None, 4, 7]),
    }


@pytest.mark.parametrize("seed", range(4))
def test_a_round_ends_where_its_tokens_would_one_by_one(seed):
    rng, inside = random.Random(seed), 0
    for _ in range(400):
        asked, tokens = drawn(rng), [rng.randrange(len(TEXTS)) for _ in range(24)]
        plain, ours = request(**asked), request(**asked)
        emit(plain, tokens, [1] * len(tokens))
        rounds = [rng.randint(1, 8) for _ in range(24)]
        emit(ours, tokens, rounds)
        assert end_of(ours) == end_of(plain), (asked, tokens, rounds)
        inside += len(ours.output_ids) > len(plain.output_ids)
    assert inside > 100  # ended in the middle of a round


def test_the_first_of_two_ends_in_a_round_wins():
    """SGLang alone takes the string, which is asked for first and comes last."""
    for asked in ({"stop": ["b", "1"]}, {"stop": ["b"], "stop_token_ids": [3]}):
        req = request(max_new_tokens=20, **asked)
        emit(req, [0, 3, 0, 1], [4])
        assert list(req.output_ids_through_stop) == [0, 3]
        builtin = request(max_new_tokens=20, **asked)
        builtin.output_ids.extend([0, 3, 0, 1])
        builtin.update_finish_state(4)
        assert list(builtin.output_ids_through_stop) == [0, 3, 0, 1]


def test_reasoning_behind_the_end_does_not_count():
    req = request(max_new_tokens=20, stop=["1"])
    req.output_ids.extend([0, 3, 0, 1])
    req.update_reasoning_tokens([0, 3, 0, 1], [7])
    _update_finish_state(Req.update_finish_state, req, 4)
    assert req.reasoning_tokens == 2


def test_a_request_without_strings_is_left_to_sglang():
    calls = []
    req = request(max_new_tokens=20, stop_token_ids=[3])
    _update_finish_state(lambda *given: calls.append(given), req, 4)
    assert calls == [(req, 4)]
