"""Shapes that follow the load on real servers: greedy answers are plain decoding's, whatever pays."""

import pytest
from exact import Ask, assert_same
from workload import answered_before, questions

ADAPTIVE = {"SGLANG_DFLASH_SHAPE": "adaptive"}
LOOKUP, OVERLAP = {"SGLANG_DFLASH_LOOKUP": "on"}, {"SGLANG_DFLASH_CPU_OVERLAP": "on"}
WIDE = ("--speculative-num-draft-tokens", 40, "--speculative-dflash-block-size", 16)
TREE = ("--speculative-eagle-topk", 4, "--speculative-num-draft-tokens", 32)


@pytest.mark.parametrize(
    ("flags", "env"),
    [
        ((), {}),
        (("--tp-size", 2, *WIDE), LOOKUP),
        (TREE, LOOKUP | OVERLAP),
    ],
    ids=["chains", "two-ranks-lookup", "trees-lookup-overlap"],
)
def test_answers_are_plain_decodings(servers, pair, plain, tokenizer, flags, env):
    copies = [
        Ask(tuple(pair.render(answered_before(prompt.record))), 120, ignore_eos=False)
        for prompt in pair.prompts(kinds=("times", "count"), per_kind=1)
    ]
    asks = questions(tokenizer, 1) + copies
    server = servers.dflash(*flags, **ADAPTIVE, **env)
    for clients in (1, 8):
        given = server.client.generate_many([a.prompt for a in asks], clients, [a.sampling() for a in asks])
        assert_same(plain, asks, given)
    assert sum(len(a.token_ids) for a in given) > 1.5 * sum(a.rounds for a in given)
