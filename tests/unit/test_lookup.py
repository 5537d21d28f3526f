"""Candidates from the context: the index beside brute force, survival, and what is made of both for a batch."""

import itertools
import math
import random
from array import array
from types import SimpleNamespace

import pytest
import torch

from sglang_dflash.engine.lookup.index import LONGEST, PLACES, ContextIndex, Match
from sglang_dflash.engine.lookup.requests import Follows, RequestContexts
from sglang_dflash.engine.lookup.steps import Lookup, pack
from sglang_dflash.engine.lookup.survival import RequestSurvival, SharedSurvival
from sglang_dflash.engine.proposal.build import build_proposer
from sglang_dflash.engine.proposal.context import ChainOrContext, ContextChain, likelier
from sglang_dflash.kernels.continuation.naive import continuation
from sglang_dflash.types import Continuation, Drafted, Shape

CPU = torch.device("cpu")


def by_hand(tokens: list[int]) -> Match | None:
    """The longest match among the latest places of the last two tokens; of equals the latest."""
    here, best = len(tokens), None
    places = [end for end in range(2, here) if tokens[end - 2 : end] == tokens[here - 2 :]]
    for end in reversed(places[-PLACES:]):
        length = max(n for n in range(2, min(end, LONGEST) + 1) if tokens[end - n : end] == tokens[here - n :])
        if best is None or length > best.length:
            best = Match(end, length)
    return best


@pytest.mark.parametrize("vocab", [1, 2, 3, 8, 60])
def test_the_index_finds_what_brute_force_does_however_it_grows(vocab):
    rng = random.Random(vocab)
    for size in (0, 1, 2, 3, 20, 150):
        index = ContextIndex([rng.randrange(vocab) for _ in range(size)])
        for _ in range(40):
            assert index.match() == by_hand(index.tokens)
            index.extend([rng.randrange(vocab) for _ in range(rng.randrange(4))])
        assert ContextIndex(index.tokens).match() == index.match()


def test_a_continuation_goes_round_where_the_context_ends():
    index = ContextIndex([9, 1, 2, 3, 1, 2])
    assert index.match() == Match(3, 2)
    assert index.continuation(3, 8) == [3, 1, 2, 3, 1, 2, 3, 1]


class Req:
    """What is read of SGLang's request."""

    def __init__(self, prompt, emitted=(), most=1000):
        self.origin_input_ids, self.output_ids = array("q", prompt), array("q", emitted)
        self.sampling_params = SimpleNamespace(max_new_tokens=most)


def test_contexts_follow_their_requests():
    contexts, req = RequestContexts(vocab_size=50), Req([5, 6, 7, 8, 9, 1], [5, 6])
    assert contexts.follows([req], 3)[0][:2] == (8, [7, 8, 9])
    req.output_ids.extend([7, 3])
    assert contexts.follows([req], 3) == [Follows(10, [], [])]
    req.output_ids.extend([6, 7])
    assert contexts.follows([req], 2)[0].tokens == [3, 6]  # the latest place
    # An abort replaces the prompt; the next request has a context of its own.
    req.origin_input_ids = array("q", [0])
    assert contexts.follows([req], 3)[0].known == 7
    assert contexts.follows([Req([1, 2, 3, 4, 1, 2])], 2)[0].tokens == [3, 4]


def test_a_context_goes_with_its_request():
    contexts, req = RequestContexts(50), Req([1, 2, 3, 1, 2])
    contexts.follows([req], 3)
    assert len(contexts._contexts) == 1
    del req
    assert len(contexts._contexts) == 0


def test_nothing_is_proposed_that_could_not_be_kept_or_embedded():
    copy = [1, 2, 3, 4, 5, 6]
    contexts = RequestContexts(50)
    # Of 4 tokens that are left the last is the target's own.
    assert contexts.follows([Req(copy, [1, 2], most=6)], 9)[0].tokens == [3, 4, 5]
    assert contexts.follows([Req(copy, [1, 2], most=3)], 9)[0].tokens == []
    # An image's place in a prompt.
    assert contexts.follows([Req([1, 2, 3, 1_000_007, 5], [1, 2])], 9)[0].tokens == [3]


def test_chances_are_learned_from_what_was_emitted():
    shared = SharedSurvival()
    own, other = RequestSurvival(shared), RequestSurvival(shared)
    copied = list(range(40)) + list(range(8))
    for _ in range(30):
        own.learn([*copied, *range(8, 20)], len(copied), Match(8, 8))
        other.learn([*copied, 99], len(copied), Match(8, 8))
    assert own.log_chances(8, 1)[0] > math.log(0.9) and other.log_chances(8, 1)[0] < math.log(0.3)
    # A request that is new has what the others have had on average; longer matches are surer.
    new = RequestSurvival(shared).log_chances(8, 30)
    assert len(new) == 30 and other.log_chances(8, 1)[0] < new[0] < own.log_chances(8, 1)[0] and new[-1] > new[0]


def test_shared_chances_follow_the_traffic():
    shared = SharedSurvival()
    for _ in range(20000):
        shared.add(4, True)
    for _ in range(8000):
        shared.add(4, False)
    assert shared.chance(4) < 0.35


def test_what_is_packed_is_shifted_to_the_anchor():
    packed = pack(
        [Follows(10, [7, 8, 9], [-0.1, -0.2, -0.3]), Follows(4, [], []), Follows(20, [1, 2], [-1.0, -2.0])], 5
    )
    anchors, positions = torch.tensor([8, 3, 3]), torch.tensor([11, 3, 20])
    out = continuation(packed, anchors, positions, 2)
    assert out.tokens.tolist() == [[9, 0], [0, 0], [0, 0]]  # the third was refuted: 3 was emitted, not 1
    assert out.log_probs.tolist() == [[-0.3, -math.inf], [-math.inf] * 2, [-math.inf] * 2]


@pytest.mark.parametrize("overlap", [False, True])
def test_a_step_adds_the_continuation(overlap):
    reqs = [Req([1, 2, 3, 4, 1], [2]), Req([1, 2, 3, 4], [5])]
    given = Drafted(torch.tensor([[2], [5]]), torch.tensor([[5], [4]]))
    step = Lookup(50, overlap, CPU).beside(lambda *arguments: given, Shape.chain(4))
    out = step(SimpleNamespace(reqs=reqs), None, None, torch.empty(0)).continuation
    assert out.tokens.tolist() == [[3, 4, 1], [0, 0, 0]]
    assert bool((out.log_probs[0] < 0).all()) and out.log_probs[1].tolist() == [-math.inf] * 3


def test_a_late_host_looks_further_ahead():
    """The round before emitted 3 and 4, which the host does not know."""
    given = Drafted(torch.tensor([[4]]), torch.tensor([[8]]))
    step = Lookup(50, True, CPU).beside(lambda *arguments: given, Shape.chain(3))
    out = step(SimpleNamespace(reqs=[Req([1, 2, 3, 4, 9], [1, 2])]), None, None, torch.empty(0)).continuation
    assert out.tokens.tolist() == [[9, 1]]


def test_how_much_of_a_continuation_will_be_kept():
    lookup = Lookup(50, False, CPU)
    copying, other = lookup.expected([Req([1, 2, 3, 4, 1], [2]), Req([1, 2, 3, 4], [5])], 5)
    assert copying[0] == 0 and all(0 < more - less < 1 for less, more in itertools.pairwise(copying[:5]))
    assert len(copying) == 6 and other == [0.0] * 6


def test_a_shape_without_drafts_is_not_looked_up_for():
    def draft(*arguments):
        raise AssertionError

    assert Lookup(50, False, CPU).beside(draft, Shape.plain()) is draft


def drafted(tokens, chances, context, context_chances) -> Drafted:
    """One request; chances of each token given those before it."""
    anchor = torch.tensor([[9]])
    return Drafted(
        tokens=torch.cat((anchor, torch.tensor([tokens])), 1),
        positions=torch.arange(30, 31 + len(tokens)).unsqueeze(0),
        candidates=torch.tensor([tokens]).unsqueeze(2),
        log_probs=torch.tensor([chances], dtype=torch.float64).log().unsqueeze(2),
        continuation=Continuation(torch.tensor([context]), torch.tensor([context_chances], dtype=torch.float64).log()),
    )


@pytest.mark.parametrize(
    ("chances", "context", "context_chances", "wanted"),
    [
        ([0.9, 0.9, 0.9], [4, 5, 6, 7, 8], [0.5, 0.5, 0.5, 0.5, 0.5], [1, 2, 3, 0, 0]),
        ([0.9, 0.1, 0.1], [4, 5, 6, 7, 8], [0.8, 0.8, 0.8, 0.8, 0.8], [4, 5, 6, 7, 8]),
        # It agrees as far as the block goes, and goes on.
        ([0.9, 0.9, 0.9], [1, 2, 3, 7, 8], [0.3, 0.3, 0.3, 0.3, 0.3], [1, 2, 3, 7, 8]),
        ([0.1, 0.1, 0.1], [0, 0, 0, 0, 0], [0.0, 0.0, 0.0, 0.0, 0.0], [1, 2, 3, 0, 0]),
    ],
    ids=["the-draft", "the-context", "both", "nothing-found"],
)
def test_the_chain_of_which_more_is_expected_to_be_kept(chances, context, context_chances, wanted):
    given = drafted([1, 2, 3], chances, context, context_chances)
    proposal = ChainOrContext(6)(given)
    assert proposal.tokens.tolist() == [[9, *wanted]] and proposal.parents is None
    assert proposal.positions.tolist() == [list(range(30, 36))]
    assert ContextChain(6)(given).tokens.tolist() == [[9, *context]]


def test_where_nothing_was_found_nothing_is_sent():
    given = drafted([1, 2, 3], [0.9, 0.9, 0.9], [4], [0.1])._replace(continuation=None)
    step = Lookup(50, False, CPU).beside(lambda *arguments: given, Shape.chain(6))
    assert step(SimpleNamespace(reqs=[Req([1, 2, 3], [4])]), None, None, torch.empty(0)) is given
    assert ChainOrContext(6)(given).tokens.tolist() == [[9, 1, 2, 3, 0, 0]]
    assert ContextChain(6)(given).tokens.tolist() == [[9, 0, 0, 0, 0, 0]]


def test_a_chain_narrower_than_the_block():
    given = drafted([1, 2, 3], [0.9, 0.9, 0.9], [4, 5], [0.1, 0.1])
    assert ChainOrContext(3)(given).tokens.tolist() == [[9, 1, 2]]


def test_every_request_is_chosen_for_alone():
    def rows(chances):
        return Continuation(torch.tensor([[1, 2], [1, 2]]), torch.tensor(chances, dtype=torch.float64).log())

    context = rows([[0.8, 0.8], [0.1, 0.1]])._replace(tokens=torch.tensor([[3, 4], [3, 4]]))
    assert likelier(rows([[0.5, 0.5], [0.5, 0.5]]), context).tolist() == [[3, 4], [1, 2]]


def test_what_is_proposed_follows_the_options():
    assert build_proposer("", 16, 40, 1, CPU, "only").shape == Shape.context(40)
    assert build_proposer("", 16, 40, 1, CPU, "on").shape == Shape.chain(40)
    assert build_proposer("", 16, 40, 4, CPU, "on").shape == Shape.tree(40, 40)
    assert build_proposer("", 16, 40, 4, CPU, "off").shape == Shape.tree(40, 16)
