"""Penalties and minimum lengths: every answer is plain decoding's, alone and mixed, for chains and random trees."""

import pytest
from exact import Ask
from launcher import path_to_doubles
from workload import questions

OVERLAP = {"SGLANG_DFLASH_CPU_OVERLAP": "on"}
TREE = OVERLAP | {
    "SGLANG_DFLASH_PROPOSER": "planted:PlantedTree",
    "SGLANG_DFLASH_PLANTED": "/dev/null",
    "PYTHONPATH": path_to_doubles(),
}
SERVERS = {
    "chain": ((), {}),
    "overlap": (("--page-size", 16), OVERLAP),
    "small chunks": (("--chunked-prefill-size", 32, "--enable-mixed-chunk"), OVERLAP),
    "tree": ((), TREE),
    "two ranks": (("--tp-size", 2), {}),
}
# A request has one kind of penalty: SGLang applies several in an order that differs from process to process.
KINDS = (
    {"frequency_penalty": 0.6},
    {},
    {"presence_penalty": 1.5},
    {"repetition_penalty": 1.4},
    {"min_new_tokens": 70, "ignore_eos": False},
    {"logit_bias": {"40": 4.0}},
    {"frequency_penalty": -0.4, "min_new_tokens": 90, "ignore_eos": False},
    {"repetition_penalty": 0.7},
)


@pytest.fixture(scope="module")
def asks(tokenizer) -> list[Ask]:
    return [ask._replace(ignore_eos=True, max_new_tokens=100) for ask in questions(tokenizer, 1)]


@pytest.fixture(scope="module")
def params(asks) -> list[dict]:
    return [ask.sampling(**KINDS[i % len(KINDS)]) for i, ask in enumerate(asks)]


@pytest.fixture(scope="module")
def wanted(plain, asks, params):
    answers = plain.client.generate_many([ask.prompt for ask in asks], 6, params)
    free = plain.of(asks)
    assert sum(a.token_ids != f for a, f in zip(answers, free, strict=True)) > len(asks) // 3
    return answers


def assert_equal(wanted, given) -> None:
    for want, got in zip(wanted, given, strict=True):
        assert (got.token_ids, got.text) == (want.token_ids, want.text)
        assert got.meta["finish_reason"] == want.meta["finish_reason"]


@pytest.mark.parametrize("name", SERVERS)
def test_greedy_answers_are_plain_decodings(servers, asks, params, wanted, name):
    flags, environment = SERVERS[name]
    server = servers.dflash(*flags, **environment)
    asked = params
    if name == "tree":
        # Right drafts after rules come from plain decoding with the same rules.
        plans = ([1, 6, 16], [3, 9], [16])
        asked = [
            p | {"custom_params": {"commit_lens": plans[i % 3], "continuation": [*a.token_ids, *range(20)]}}
            for i, (p, a) in enumerate(zip(params, wanted, strict=True))
        ]
    for concurrency in (1, 7):
        answers = server.client.generate_many([ask.prompt for ask in asks], concurrency, asked)
        assert_equal(wanted, answers)
    if name == "tree":
        assert any(answer.correct_drafts_histogram[15] for answer in answers)


def test_seeded_samples_are_plain_decodings(servers, asks):
    """All of them filter: what a seed draws depends on whether any request of a batch does."""
    flag = "--enable-deterministic-inference"
    params = [
        ask.sampling(**{"temperature": 0.9, "top_k": 8, "sampling_seed": 300 + i} | KINDS[i % len(KINDS)])
        for i, ask in enumerate(asks)
    ]
    prompts = [ask.prompt for ask in asks]
    wanted = servers.plain(flag).client.generate_many(prompts, 6, params)
    given = servers.dflash(flag, **OVERLAP).client.generate_many(prompts, 6, params)
    assert_equal(wanted, given)
