"""What followed the last tokens earlier in a context is proposed: exact, in fewer rounds, deeper than the block."""

import pytest
from exact import Ask, assert_same
from workload import answered_before, questions, shared_prefixes

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


def test_copying_takes_fewer_rounds_and_is_not_capped_at_a_block(servers, pair, plain):
    records = [p.record for p in pair.prompts(kinds=("times", "count"), per_kind=2)]
    copies = [Ask(tuple(pair.render(answered_before(record))), 120, ignore_eos=False) for record in records]
    chain = answers(servers.dflash(*WIDE[:1], 16, *BLOCK), copies)
    for flags, env in (((*WIDE,), ONLY), ((*WIDE,), ON), (TREE, ON)):
        found = answers(servers.dflash(*flags, **env), copies)
        assert_same(plain, copies, found)
        assert sum(a.rounds for a in chain) >= 1.5 * sum(a.rounds for a in found)
        assert max((len(a.token_ids) - 1) / a.rounds for a in found) > 16
