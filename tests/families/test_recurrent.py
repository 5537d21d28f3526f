"""Recurrent state over the life of a request: later turns on snapshots that commits left, abort, retraction.

One family per kind of recurrent layer. The chain server caches states the plain way (``no_buffer``), the tree
server in extra buffers, ahead of the device.
"""

import random
import threading
import time
from dataclasses import replace

import httpx
import pytest
from asks import Ask, _ids
from compare import assert_same
from family import BLOCK
from mamba2_families import nemotron_h
from table import BY_NAME

from sglang_dflash.tools.serve import ServerProcess, ServerSpec

NO_BUFFER = ("--mamba-radix-cache-strategy", "no_buffer", "--page-size", "1", "--disable-overlap-schedule")
SNAPSHOTS = ("--mamba-track-interval", "64", "--page-size", "4")
EXTRA = ("--mamba-radix-cache-strategy", "extra_buffer", *SNAPSHOTS)
LAZY = ("--mamba-radix-cache-strategy", "extra_buffer_lazy", *SNAPSHOTS)
CHUNKS = ("--chunked-prefill-size", "128")
PLANS = ([1, BLOCK, 3], [2], [BLOCK], [5, 1, 1, 4])


# Two ranks split Mamba-2's groups, of which the table's family has three.
FAMILIES = [
    replace(family, chain_flags=(*NO_BUFFER, *CHUNKS), tree_flags=(*EXTRA, *CHUNKS))
    for family in (BY_NAME["qwen3.5"], nemotron_h("nemotron-h", "", "", (), groups=2))
]


@pytest.fixture(scope="module", params=FAMILIES, ids=str)
def family(request):
    return request.param


def _first_turns() -> list[Ask]:
    # Long enough that commits of every length cross several multiples of 64.
    rng = random.Random(5)
    return [Ask(_ids(rng, length), 210) for length in (3, 40, 66, 101)]


def _second_turns(plain) -> list[Ask]:
    """Two ways on from each first answer."""
    rng = random.Random(6)
    whole = [ask.prompt + plain[ask].token_ids[: ask.max_new_tokens] for ask in _first_turns()]
    return [Ask(tokens + _ids(rng, 7), 40) for tokens in whole for _ in range(2)]


@pytest.fixture(scope="module")
def plain(family, pair, logs, launch):
    """Plain decoding's answers, without a cache: {ask: Generation}."""
    spec = ServerSpec(str(pair[0]), None, "plain", exact=True).with_flags(*family.flags, "--disable-radix-cache")
    answers = {}
    with ServerProcess(spec, logs, launcher=launch) as server:
        for asks in (_first_turns(), None):
            asks = asks or _second_turns(answers)
            params = [ask.sampling(longer=True) for ask in asks]
            given = server.client.generate_many([ask.prompt for ask in asks], 4, params)
            answers.update(zip(asks, given, strict=True))
    return answers


def _served(served, asks, concurrency=4):
    params = [ask.sampling(custom_params={"commit_lens": PLANS[i % len(PLANS)]}) for i, ask in enumerate(asks)]
    return served.planned(asks, concurrency, params)


def _check(oracle, plain, asks, answers, what):
    for ask, answer in zip(asks, answers, strict=True):
        assert_same(oracle, ask, plain[ask].token_ids, answer.token_ids, what)


def test_later_turns_start_from_committed_states(served, oracle, plain):
    served.flush()
    first, second = _first_turns(), _second_turns(plain)
    _check(oracle, plain, first, _served(served, first), "first turn")
    answers = _served(served, second)
    _check(oracle, plain, second, answers, "second turn")
    if served.shape == "tree":
        # States of nodes, which commits kept at multiples of 64.
        for ask, answer in zip(second, answers, strict=True):
            assert answer.cached_tokens == (len(ask.prompt) - 8) // 64 * 64


def test_the_same_turn_twice(served, oracle, plain):
    served.flush()
    asks = _second_turns(plain)
    for visit in ("first", "second"):
        answers = _served(served, asks, 1)
        _check(oracle, plain, asks, answers, f"{visit} visit")
    assert sum(answer.cached_tokens for answer in answers) > 64 * len(asks)


def test_aborted_requests_leave_the_others_exact(served, oracle, plain):
    asks = _first_turns()
    long = asks[1]._replace(max_new_tokens=800)
    stop = threading.Timer(0.6, lambda: _abort(served.url, "gone"))
    stop.start()
    gone = threading.Thread(target=_request, args=(served.url, long, "gone"))
    gone.start()
    _check(oracle, plain, asks, _served(served, asks), "beside an aborted request")
    gone.join()
    _check(oracle, plain, asks, _served(served, asks), "after an aborted request")


def _abort(url: str, rid: str) -> None:
    httpx.post(f"{url}/abort_request", json={"rid": rid}, trust_env=False).raise_for_status()


def _request(url: str, ask: Ask, rid: str) -> None:
    body = {"input_ids": list(ask.prompt), "sampling_params": ask.sampling(), "rid": rid}
    httpx.post(f"{url}/generate", json=body, trust_env=False, timeout=120)


def test_all_states_are_free_afterwards(served):
    # SGLang's own invariant checker runs whenever a scheduler is idle and ends the server at a leak.
    served.flush()
    time.sleep(1)
    load = httpx.get(f"{served.url}/v1/loads", trust_env=False).json()["loads"][0]
    assert (load["num_used_tokens"], load["num_running_reqs"], load["num_waiting_reqs"]) == (0, 0, 0)


def test_retraction_with_lazy_snapshots(family, pair, logs, oracle, plain, tmp_path):
    """Running requests are evicted and prefilled again, often; snapshots only where an interval ends."""
    env = {"SGLANG_DFLASH_CPU_OVERLAP": "on", "SGLANG_TEST_RETRACT": "1", "SGLANG_TEST_RETRACT_INTERVAL": "9"}
    spec = (
        ServerSpec(str(pair[0]), str(pair[1]), "dflash", exact=True)
        .with_flags(*family.flags, *LAZY, *CHUNKS)
        .with_env(**env)
    )
    asks = _first_turns()
    with ServerProcess(spec, logs) as server:
        answers = server.client.generate_many([a.prompt for a in asks], 4, [a.sampling() for a in asks])
    _check(oracle, plain, asks, answers, "retracted")
    assert sum(answer.meta["num_retractions"] for answer in answers) > 0


def test_ranks_and_mixed_chunks(family, pair, logs, launch, oracle, plain):
    """States are split by heads; prompts are prefilled in one pass with requests that decode."""
    flags = ("--tp-size", 2, "--enable-mixed-chunk", "--chunked-prefill-size", "96")
    spec = ServerSpec(str(pair[0]), str(pair[1]), "dflash", exact=True).with_flags(*family.flags, *EXTRA, *flags)
    spec = spec.with_env(SGLANG_DFLASH_CPU_OVERLAP="on")
    asks = [ask._replace(max_new_tokens=60) for ask in _first_turns()]
    with ServerProcess(spec, logs, launcher=launch) as server:
        answers = server.client.generate_many([a.prompt for a in asks], 3, [a.sampling() for a in asks])
    wanted = [plain[ask] for ask in _first_turns()]
    for ask, want, answer in zip(asks, wanted, answers, strict=True):
        assert_same(oracle, ask, want.token_ids, answer.token_ids, "ranks")
    # A step that also prefills gives a request one token without a round.
    in_rounds = [sum((n + 1) * c for n, c in enumerate(a.correct_drafts_histogram)) for a in answers]
    assert any(tokens < len(a.token_ids) - 1 for tokens, a in zip(in_rounds, answers, strict=True)), in_rounds
