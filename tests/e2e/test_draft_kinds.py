"""Drafts of every kind on the server: rounds are the oracle's, tokens plain decoding's; DFlash 2 as SGLang's own."""

import random
from dataclasses import replace

import kind_drafts
import pytest
from distributions import g_test
from exact import Ask, assert_same
from test_oracles import GREEDY, Oracle, assert_same_rounds, rounds_of
from test_sampling import LENGTH, P_VALUE, most_varied, sample

from sglang_dflash.reference import ReferenceKind, load_target

PER_KIND = 1


@pytest.fixture(scope="module")
def drafts(pair, tmp_path_factory):
    root = tmp_path_factory.mktemp("kinds")

    def make(kind: str) -> str:
        draft = kind_drafts.Trained(pair)
        kind_drafts.KINDS[kind](draft)
        return draft.save(root / kind) if not (root / kind).exists() else str(root / kind)

    return make


@pytest.fixture(scope="module")
def prompts(pair):
    return [prompt.token_ids for prompt in pair.prompts(per_kind=PER_KIND)]


def served(servers, draft: str, worker: str = "dflash", *flags):
    return servers.get(replace(servers.spec(worker, *flags), draft=draft))


@pytest.mark.parametrize("kind", kind_drafts.KINDS)
def test_rounds_are_the_oracles_and_tokens_plain_decodings(servers, pair, plain, drafts, prompts, kind):
    oracle = Oracle(pair)
    oracle.draft = ReferenceKind(drafts(kind))
    server = served(servers, drafts(kind))
    answers = server.client.generate_many(prompts, 4, GREEDY)
    assert_same_rounds(answers, prompts, oracle, oracle.draft.block_size)
    print(f"{kind}: accept length {sum(a.accept_length for a in answers) / len(answers):.2f}")
    asks = [Ask(tuple(prompt), GREEDY["max_new_tokens"], ignore_eos=False) for prompt in prompts]
    assert_same(plain, asks, answers)


@pytest.mark.parametrize("kind", kind_drafts.BUILTIN)
def test_rounds_are_those_of_sglangs_own_worker(servers, drafts, prompts, kind):
    ours = served(servers, drafts(kind)).client.generate_many(prompts, 1, GREEDY)
    theirs = served(servers, drafts(kind), "builtin").client.generate_many(prompts, 1, GREEDY)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.token_ids == other.token_ids
        assert rounds_of(mine) == rounds_of(other)
    assert sum(answer.accept_length for answer in ours) / len(ours) > 1.5


def test_a_smaller_block_than_trained(servers, pair, drafts, prompts):
    """Convolutions stop where the served block ends."""
    oracle = Oracle(pair)
    oracle.draft = ReferenceKind(drafts("dflash2"))
    server = served(servers, drafts("dflash2"), "dflash", "--speculative-num-draft-tokens", 6)
    answers = server.client.generate_many(prompts, 4, GREEDY)
    assert_same_rounds(answers, prompts, oracle, 6)


@pytest.mark.parametrize("kind", ["laguna", "mimo", "speculators_dflash2"])
def test_two_ranks_go_through_the_same_rounds(servers, drafts, prompts, kind):
    """Gates, sinks, embedding, head and candidates are split over ranks."""
    one = served(servers, drafts(kind)).client.generate_many(prompts, 4, GREEDY)
    two = served(servers, drafts(kind), "dflash", "--tp-size", 2).client.generate_many(prompts, 4, GREEDY)
    for mine, other in zip(one, two, strict=True):
        assert mine.token_ids == other.token_ids and rounds_of(mine) == rounds_of(other)


SAMPLES = 600
FILTERS = ({}, {"top_k": 20, "top_p": 0.9})


def test_sampled_dflash2_follows_the_target(servers, pair, drafts):
    """A path that the selector chose is a point mass like any other proposal."""
    target = load_target(pair.target)
    end = target.generation_config.eos_token_id
    stop_ids = [end] if isinstance(end, int) else list(end)
    prompts = [prompt.token_ids for prompt in pair.prompts(kinds=("prose",), per_kind=4)]
    cases = [most_varied(target, prompts, filters, stop_ids) for filters in FILTERS]
    order = [case for case in cases for _ in range(SAMPLES)]
    random.Random(5).shuffle(order)
    params = [case.params | {"max_new_tokens": LENGTH} for case in order]
    answers = sample(served(servers, drafts("dflash2")), [case.prompt for case in order], params)
    assert sum(meta.get("spec_num_correct_drafts", 0) for _, meta in answers) > len(answers) // 10
    for case in cases:
        drawn = [tokens for (tokens, _), which in zip(answers, order, strict=True) if which is case]
        p_value, bins = g_test(drawn, case.likely)
        print(f"{case.params}: {bins} bins, p = {p_value:.3g}")
        assert bins >= 4 and p_value > P_VALUE, case.params
