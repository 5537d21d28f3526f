"""Penalties, minimum lengths, biases, logit processors, alone and mixed: every answer is plain decoding's."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from exact import Ask, assert_close
from launcher import path_to_doubles
from sglang.srt.sampling.custom_logit_processor import (
    DeepseekOCRNoRepeatNGramLogitProcessor,
    DisallowedTokensLogitsProcessor,
)
from workload import questions

OVERLAP = {"SGLANG_DFLASH_CPU_OVERLAP": "on"}
PLANTED = OVERLAP | {"SGLANG_DFLASH_PLANTED": "/dev/null", "PYTHONPATH": path_to_doubles()}
PROCESSORS = "--enable-custom-logit-processor"
SERVERS = {
    "chain": ((), {}),
    "overlap": (("--page-size", 16), OVERLAP),
    "small chunks": (("--chunked-prefill-size", 32, "--enable-mixed-chunk"), OVERLAP),
    "tail": ((), PLANTED | {"SGLANG_DFLASH_PROPOSER": "tailed:TailedChain"}),
    "tree": ((), PLANTED | {"SGLANG_DFLASH_PROPOSER": "planted:PlantedTree"}),
    "two ranks": (("--tp-size", 2), {}),
}


def processed(kind: type, **params) -> tuple[dict, dict]:
    """A custom logit processor of SGLang's and what it is handed."""
    return {"custom_params": params}, {"custom_logit_processor": kind.to_str()}


# What to ask for: sampling parameters, other fields. A request has one kind of penalty, for SGLang applies several in
# an order that differs from process to process.
KINDS = (
    ({"frequency_penalty": 0.6}, {}),
    ({}, {}),
    ({"presence_penalty": 1.5}, {}),
    ({"repetition_penalty": 1.4}, {}),
    ({"min_new_tokens": 70, "ignore_eos": False}, {}),
    # Reads what was emitted.
    processed(DeepseekOCRNoRepeatNGramLogitProcessor, ngram_size=3, window_size=60),
    ({"logit_bias": {"40": 4.0}}, {}),
    ({"frequency_penalty": -0.4, "min_new_tokens": 90, "ignore_eos": False}, {}),
    ({"repetition_penalty": 0.7}, {}),
    # Does not.
    processed(DisallowedTokensLogitsProcessor, token_ids=[15, 22, 225]),
)


@pytest.fixture(scope="module")
def asks(tokenizer) -> list[Ask]:
    return [ask._replace(ignore_eos=True, max_new_tokens=100) for ask in questions(tokenizer, 1)]


def send(server, asks, concurrency: int, kinds=KINDS, also=(), **more) -> list:
    """Every question with the parameters of its kind, ``more`` of them, and the fields ``also``."""

    def one(index: int):
        sampling, fields = kinds[index % len(kinds)]
        return server.client.generate(
            asks[index].prompt, asks[index].sampling(**(sampling | more)), **fields, **dict(also)
        )

    with ThreadPoolExecutor(concurrency) as pool:
        return list(pool.map(one, range(len(asks))))


@pytest.fixture(scope="module")
def wanted(servers, asks):
    plain = servers.plain(PROCESSORS)
    answers = send(plain, asks, 6)
    free = send(plain, asks, 6, [({}, {})])
    assert sum(a.token_ids != f.token_ids for a, f in zip(answers, free, strict=True)) > len(asks) // 3
    return answers


def assert_equal(wanted, given) -> None:
    for index, (want, got) in enumerate(zip(wanted, given, strict=True)):
        assert (got.token_ids, got.text) == (want.token_ids, want.text), KINDS[index % len(KINDS)]
        assert got.meta["finish_reason"] == want.meta["finish_reason"]


@pytest.mark.parametrize("name", SERVERS)
def test_greedy_answers_are_plain_decodings(servers, asks, wanted, name):
    flags, environment = SERVERS[name]
    server = servers.dflash(PROCESSORS, *flags, **environment)
    for concurrency in (1, 7):
        assert_equal(wanted, send(server, asks, concurrency, _planned(wanted) if name == "tree" else KINDS))


def _planned(wanted) -> list:
    """``KINDS``, and trees with right paths of any length: right drafts come from plain decoding with its rules."""
    plans, planned = ([1, 6, 16], [3, 9], [16]), []
    for index, answer in enumerate(wanted):
        sampling, fields = KINDS[index % len(KINDS)]
        tree = {"commit_lens": plans[index % 3], "continuation": [*answer.token_ids, *range(20)]}
        planned.append((sampling | {"custom_params": sampling.get("custom_params", {}) | tree}, fields))
    return planned


def test_seeded_samples_are_plain_decodings(servers, asks):
    """All of them filter: what a seed draws depends on whether any request of a batch does."""
    flags = ("--enable-deterministic-inference", PROCESSORS)
    more = {"temperature": 0.9, "top_k": 8, "sampling_seed": 300}
    log_probs = {"return_logprob": True, "top_logprobs_num": 1}
    wanted = send(servers.plain(*flags), asks, 6, also=log_probs, **more)
    given = send(servers.dflash(*flags, **OVERLAP), asks, 6, also=log_probs, **more)
    assert_equal(wanted, given)
    for want, got in zip(wanted, given, strict=True):
        for name in ("output_token_logprobs", "output_top_logprobs"):
            assert_close(want.meta[name], got.meta[name], name)
    assert sum(got.rounds < len(got.token_ids) for got in given) > len(asks) // 2


def test_retracted_requests_keep_their_counts(servers, asks, wanted):
    """Plain decoding forgets what was emitted before; here answers are those without retraction."""
    evict = {"SGLANG_TEST_RETRACT": "1", "SGLANG_TEST_RETRACT_INTERVAL": "9"}
    server = servers.dflash(PROCESSORS, "--max-total-tokens", 1500, **OVERLAP, **evict)
    given = send(server, asks, 12)
    assert_equal(wanted, given)
    assert sum(answer.meta["num_retractions"] for answer in given) > 3
