"""Every commit length from 1 to W, and every branch shape, wherever it matters.

The trained pair's acceptances are what they are; here a test double (tests/doubles/planted.py)
proposes plain decoding's own continuation with errors planted where the request asks for them. Once with
acceptance and injection inside a graph, which another double stands for (tests/doubles/tailed.py). The block is of 16
tokens; the verify width is its own, narrower for one chain, wider for one tree.
"""

import json

import pytest
from exact import Ask, assert_same
from launcher import path_to_doubles
from workload import questions

CONTEXT = 256
PAGE = 8

OVERLAP = {"SGLANG_DFLASH_CPU_OVERLAP": "on"}
# name: proposer, verify width, flags, environment
SERVERS = {
    "chain": ("planted:PlantedChain", 16, ("--page-size", PAGE), OVERLAP),
    "chain-window": ("planted:PlantedChain", 16, ("--speculative-draft-window-size", 20), {}),
    "chain-tail": ("tailed:TailedChain", 16, ("--page-size", PAGE), OVERLAP),
    "narrow-chain-tail": ("tailed:TailedChain", 6, ("--page-size", PAGE), OVERLAP),
    "narrow-chain-window": ("planted:PlantedChain", 5, ("--speculative-draft-window-size", 20), {}),
    "tree": ("planted:PlantedTree", 16, ("--page-size", PAGE), OVERLAP),
    "wide-tree": ("planted:PlantedTree", 40, ("--page-size", PAGE), OVERLAP),
}


@pytest.fixture(scope="module", params=SERVERS)
def planted(request, servers, tmp_path_factory):
    """(server, write, width) where write(asks, answers) tells the double what plain decoding says."""
    proposer, width, flags, overlap = SERVERS[request.param]
    path = tmp_path_factory.mktemp("planted") / "continuations.jsonl"
    path.write_text("")
    env = overlap | {
        "SGLANG_DFLASH_PROPOSER": proposer,
        "SGLANG_DFLASH_PLANTED": str(path),
        "PYTHONPATH": path_to_doubles(),
    }
    widths = ("--speculative-num-draft-tokens", width, "--speculative-dflash-block-size", 16)
    flags = ("--context-length", CONTEXT, *widths, *flags)

    def write(asks, answers):
        rows = ({"prompt": list(a.prompt), "output": list(o)} for a, o in zip(asks, answers, strict=True))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    return servers.dflash(*flags, **env), write, width


def _run(planted, plain, asks, concurrency):
    server, write, width = planted
    # The double must know more than is asked for, or it could not be right beyond a request's last token.
    longer = [a._replace(max_new_tokens=a.max_new_tokens + width, custom_params=()) for a in asks]
    write(asks, plain.of(longer))
    answers = server.client.generate_many([a.prompt for a in asks], concurrency, [a.sampling() for a in asks])
    assert_same(plain, asks, answers)
    return answers


def _asks(tokenizer, plans, max_new_tokens, lengths=(9, 16, 23, 31, 32)):
    stream = [token for ask in questions(tokenizer, 6) for token in ask.prompt]
    return [
        Ask(
            tuple(stream[37 * i : 37 * i + lengths[i % len(lengths)]]),
            max_new_tokens,
            custom_params=(("commit_lens", tuple(plan)),),
        )
        for i, plan in enumerate(plans)
    ]


def test_every_commit_length_at_every_place_of_a_page(planted, plain, tokenizer):
    # Constant commits step through the places of a page and of the window; 97 tokens end inside a round.
    plans = [[commit] for commit in range(1, planted[2] + 1)]
    answers = _run(planted, plain, _asks(tokenizer, plans, 97), concurrency=8)
    for (commit,), answer in zip(plans, answers, strict=True):
        histogram = answer.correct_drafts_histogram
        # The first token is the prefill's; the last round is cut where the request ends.
        assert answer.rounds == -(-96 // commit)
        assert sum(histogram) == answer.rounds
        assert histogram[commit - 1] >= answer.rounds - 1


def test_mixed_commit_lengths_in_one_batch(planted, plain, tokenizer):
    width = planted[2]
    plans = [[1, 16, 2, 15], [5, 3, 8], [width], [1], [7, 1, 1, 12], [4, 4, 9, 2, 16, 1]]
    plans = [[min(commit, width) for commit in plan] for plan in plans]
    _run(planted, plain, _asks(tokenizer, plans, 120), concurrency=6)


def test_every_commit_length_at_the_last_token(planted, plain, tokenizer):
    # One prefill token and one round: the request ends at every place of its block.
    width = planted[2]
    asks = [
        ask._replace(max_new_tokens=1 + last) for last in range(1, width + 1) for ask in _asks(tokenizer, [[width]], 1)
    ]
    asks = [a._replace(prompt=a.prompt + (20 + i,)) for i, a in enumerate(asks)]
    answers = _run(planted, plain, asks, concurrency=8)
    assert all(answer.rounds == 1 for answer in answers)


def test_up_to_the_end_of_the_context(planted, plain, tokenizer):
    # SGLang keeps two positions of the context; prompt and answer fill the rest, with every commit length.
    plans = [[min(commit, planted[2])] for commit in (1, 2, 5, 8, 11, 15, 40)]
    asks = [
        a._replace(max_new_tokens=CONTEXT - len(a.prompt) - 2)
        for a in _asks(tokenizer, plans, 0, lengths=(31, 100, 200))
    ]
    answers = _run(planted, plain, asks, concurrency=4)
    assert all(len(a.token_ids) == ask.max_new_tokens for a, ask in zip(answers, asks, strict=True))


def test_requests_without_a_plan_get_the_real_draft(planted, plain, tokenizer):
    asks = questions(tokenizer, 1, max_new_tokens=60)
    server, write, _ = planted
    write([], [])
    answers = server.client.generate_many([a.prompt for a in asks], 5, [a.sampling() for a in asks])
    assert_same(plain, asks, answers)
