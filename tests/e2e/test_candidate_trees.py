"""A proposer that reads candidates builds trees of them: exact, and in fewer rounds than the chain."""

import pytest
from exact import assert_same
from launcher import path_to_doubles
from workload import questions


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_tree_of_candidates(servers, plain, tokenizer, ranks):
    flags = ("--speculative-num-draft-tokens", 21, "--speculative-dflash-block-size", 16, "--tp-size", ranks)
    env = {"SGLANG_DFLASH_PROPOSER": "spread:SpreadTree", "PYTHONPATH": path_to_doubles()}
    narrow = ("--speculative-num-draft-tokens", 11, "--speculative-dflash-block-size", 16)
    asks = questions(tokenizer, 2)
    tree, chain = (
        server.client.generate_many([a.prompt for a in asks], 8, [a.sampling() for a in asks])
        for server in (servers.dflash(*flags, **env), servers.dflash(*narrow))
    )
    assert_same(plain, asks, tree)
    # The path is the chain's, with a second chance at every depth.
    assert sum(answer.rounds for answer in tree) < sum(answer.rounds for answer in chain)
