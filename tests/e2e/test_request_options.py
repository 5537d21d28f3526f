"""What a request may ask for besides tokens: ends of its own, and biases. All as plain decoding has it."""

import re

import pytest
from exact import Ask, assert_same
from workload import questions

OVERLAP = {"SGLANG_DFLASH_CPU_OVERLAP": "on"}
BLOCK = 16


@pytest.fixture(scope="module")
def server(servers):
    return servers.dflash("--page-size", 16, **OVERLAP)


@pytest.fixture(scope="module")
def asks(tokenizer) -> list[Ask]:
    return [ask._replace(ignore_eos=True, max_new_tokens=60) for ask in questions(tokenizer, 1)]


def _both(server, plain, asks, params):
    prompts = [ask.prompt for ask in asks]
    return [client.generate_many(prompts, 6, params) for client in (plain.client, server.client)]


def _same(wanted, answers) -> None:
    for want, got in zip(wanted, answers, strict=True):
        assert (got.token_ids, got.text) == (want.token_ids, want.text)
        assert got.meta["finish_reason"] == want.meta["finish_reason"]


@pytest.mark.parametrize("trim", [True, False])
def test_stop_strings_at_every_place_of_a_round(server, plain, asks, tokenizer, trim):
    answers = plain.of(asks)
    # Every place of a block is the last one for some answer; every other stop ends inside a token's text.
    params = []
    for i, (ask, answer) in enumerate(zip(asks, answers, strict=True)):
        text = tokenizer.decode(answer[: 4 + i % (2 * BLOCK)])
        params.append(ask.sampling(stop=[text[-(3 + i % 4) :], "never said"], no_stop_trim=not trim))
    wanted, given = _both(server, plain, asks, params)
    _same(wanted, given)
    stopped = [answer for answer in given if answer.finish_reason == "stop"]
    assert len(stopped) == len(asks)
    assert len({len(answer.token_ids) % BLOCK for answer in stopped}) > BLOCK // 2


def test_stop_tokens_and_patterns(server, plain, asks, tokenizer):
    answers, params, stops = plain.of(asks), [], []
    for i, (ask, answer) in enumerate(zip(asks, answers, strict=True)):
        at = 3 + i % BLOCK
        # Every other one stops at a token; the others at a pattern, one character of which may be anything.
        stops.append(answer[at] if i % 2 else re.escape(tokenizer.decode(answer[at : at + 2])) + ".")
        stop = {"stop_token_ids": [stops[-1]]} if i % 2 else {"stop_regex": stops[-1]}
        params.append(ask.sampling(**stop, ignore_eos=not i % 2))  # which leaves out stop tokens, too
    wanted, given = _both(server, plain, asks, params)
    _same(wanted, given)
    assert (
        sum(answer.meta["finish_reason"].get("matched") == stop for answer, stop in zip(given, stops, strict=True)) > 12
    )


def test_of_several_ends_in_a_round_the_first_wins(server, plain, asks, tokenizer):
    """The string that is asked for first comes last; before it comes another, a pattern or a token."""
    answers, params = plain.of(asks), []
    for i, (ask, answer) in enumerate(zip(asks, answers, strict=True)):
        at = 2 + i % BLOCK
        early = tokenizer.decode(answer[at : at + 2])
        first = ({"stop": [early]}, {"stop_regex": re.escape(early)}, {"stop_token_ids": [answer[at]]})[i % 3]
        late = [tokenizer.decode(answer[at + 3 : at + 5]), *first.pop("stop", [])]
        params.append(ask.sampling(stop=late, ignore_eos=False, **first))
    wanted, given = _both(server, plain, asks, params)
    _same(wanted, given)
    assert len({answer.meta["completion_tokens"] for answer in given}) > 5
    for want, got in zip(wanted, given, strict=True):
        assert got.meta["completion_tokens"] == want.meta["completion_tokens"]


def test_a_stream_ends_at_its_stop_string(server, plain, asks, tokenizer):
    for ask, answer in zip(asks[:4], plain.of(asks[:4]), strict=True):
        params = ask.sampling(stop=[tokenizer.decode(answer[7:9])])
        want = plain.client.generate(ask.prompt, params)
        pieces = []
        got = server.client.generate(ask.prompt, params, on_text=pieces.append)
        _same([want], [got])
        assert all(want.text.startswith(piece) for piece in pieces), pieces


def test_logit_bias(server, plain, asks):
    """Banned and favoured tokens, in batches with requests that have no bias."""
    answers = plain.of(asks)
    params = []
    for i, (ask, answer) in enumerate(zip(asks, answers, strict=True)):
        bias = {str(answer[1 + i % 7]): -100.0, str(answer[10]): 3.0 + i % 5}
        params.append(ask.sampling(logit_bias=bias) if i % 3 else ask.sampling())
    wanted, given = _both(server, plain, asks, params)
    _same(wanted, given)
    for answer, asked in zip(given, params, strict=True):
        banned = {int(token) for token, bias in asked.get("logit_bias", {}).items() if bias < 0}
        assert not banned & set(answer.token_ids)
    assert sum(got.token_ids != answer for got, answer in zip(given, answers, strict=True)) > len(asks) // 2
    assert_same(plain, asks[::3], given[::3])
