"""What followed the last tokens earlier in a context is proposed: exact, in fewer rounds, deeper than the block."""

import pytest
from exact import Ask, assert_same
from workload import questions, shared_prefixes

BLOCK = ("--speculative-dflash-block-size", 16)
TREE = ("--speculative-eagle-topk", 4, "--speculative-num-draft-tokens", 32)
WIDE = ("--speculative-num-draft-tokens", 40, *BLOCK)
ON, ONLY = {"SGLANG_DFLASH_LOOKUP": "on"}, {"SGLANG_DFLASH_LOOKUP": "only"}


def answers(server, asks):
    return server.client.generate_many([a.prompt for a in asks], 8, [a.sampling() for a in asks])


@pytest.fixture(scope="module")
def asks(tokenizer) -> list[Ask]:
    """Questions of every kind, and answers that go on for long: those of a small model repeat themselves."""
    return questions(tokenizer, 1) + shared_prefixes(tokenizer, 2, 3, 60, seed=5)


@pytest.mark.parametrize(
    ("flags", "env"),
    [
        ((), ON),
        ((*WIDE, "--tp-size", 2), ON),
        (TREE, ON),
        (WIDE, ONLY),
        (TREE, ON | {"SGLANG_DFLASH_CPU_OVERLAP": "on"}),
        (WIDE, ONLY | {"SGLANG_DFLASH_CPU_OVERLAP": "on"}),
    ],
    ids=["chain", "wide-chain-two-ranks", "tree", "only", "tree-overlap", "only-overlap"],
)
def test_answers_are_plain_decodings(servers, plain, asks, flags, env):
    assert_same(plain, asks, answers(servers.dflash(*flags, **env), asks))
