"""Trees of the draft's candidates: exact, and in fewer rounds than the chain."""

import pytest
from exact import assert_same
from launcher import path_to_doubles
from workload import questions

BLOCK = ("--speculative-dflash-block-size", 16)


def answers(server, asks):
    return server.client.generate_many([a.prompt for a in asks], 8, [a.sampling() for a in asks])


@pytest.fixture(scope="module")
def asks(tokenizer):
    return questions(tokenizer, 2)


@pytest.fixture(scope="module")
def chain_rounds(servers, asks):
    return sum(a.rounds for a in answers(servers.dflash("--speculative-num-draft-tokens", 11, *BLOCK), asks))


@pytest.mark.parametrize("flags", [("--tp-size", 1), ("--tp-size", 2)], ids=["one-rank", "two-ranks"])
def test_the_most_likely_paths(servers, plain, asks, chain_rounds, flags):
    tree = answers(servers.dflash("--speculative-eagle-topk", 3, "--speculative-num-draft-tokens", 21, *flags), asks)
    assert_same(plain, asks, tree)
    assert sum(answer.rounds for answer in tree) < chain_rounds


def test_a_proposer_of_ones_own_reads_candidates(servers, plain, asks, chain_rounds):
    env = {"SGLANG_DFLASH_PROPOSER": "spread:SpreadTree", "PYTHONPATH": path_to_doubles()}
    tree = answers(servers.dflash("--speculative-num-draft-tokens", 21, *BLOCK, "--tp-size", 2, **env), asks)
    assert_same(plain, asks, tree)
    # The path is the chain's, with a second chance at every depth.
    assert sum(answer.rounds for answer in tree) < chain_rounds
