"""Candidates of a draft: log-probabilities over the whole vocabulary, pair scores, and their way through one tensor."""

import math
from types import SimpleNamespace

import pytest
import torch
from test_draft_ends import HIDDEN, VOCAB, sharded

from sglang_dflash.engine.draft.candidates import Candidates, Packing, SelectedCandidates
from sglang_dflash.engine.draft.head import MappedHead, WholeHead
from sglang_dflash.engine.draft.selector import CandidateSelector, SelectedPath
from sglang_dflash.kernels.selected_path import Transform

PLAIN = Transform(1.0, None)


def ranked_by_hand(logits: list[float], k: int, transform=lambda x: x) -> list[tuple[int, float]]:
    """The k most likely tokens and their log-probabilities, in plain Python."""
    scores = [transform(x) for x in logits]
    total = math.log(sum(math.exp(s) for s in scores))
    order = sorted(range(len(scores)), key=lambda i: -scores[i])[:k]
    return [(i, scores[i] - total) for i in order]


@pytest.mark.parametrize("transform", [PLAIN, Transform(0.5, None), Transform(2.0, 3.0)])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_log_probabilities_are_of_the_whole_vocabulary(world_size, transform):
    weight, hidden, k = torch.randn(VOCAB, HIDDEN), torch.randn(11, HIDDEN), 4

    def by_hand(x):
        x *= transform.multiplier
        return x if transform.cap is None else transform.cap * math.tanh(x / transform.cap)

    def ask(head, hidden):
        return head.ranked(hidden, k, transform)

    answers = [ask(WholeHead(weight), hidden)] if world_size == 1 else sharded(weight, hidden, world_size, ask)
    for log_probs, ids in answers:
        for row, logits in enumerate((hidden @ weight.T).tolist()):
            wanted = ranked_by_hand(logits, k, by_hand)
            assert ids[row].tolist() == [token for token, _ in wanted]
            assert log_probs[row].tolist() == pytest.approx([p for _, p in wanted], abs=1e-4)


def test_a_part_of_the_vocabulary_names_the_targets_tokens():
    weight, hidden, ids = torch.randn(6, HIDDEN), torch.randn(5, HIDDEN), torch.tensor([3, 9, 1, 20, 7, 11])
    own, tokens = WholeHead(weight).ranked(hidden, 2, PLAIN)
    log_probs, mapped = MappedHead(WholeHead(weight), ids).ranked(hidden, 2, PLAIN)
    assert torch.equal(log_probs, own) and torch.equal(mapped, ids[tokens])


@pytest.mark.parametrize("has_transitions", [False, True])
def test_what_is_packed_comes_out_again(has_transitions):
    bs, block, k = 3, 5, 4
    tokens, positions = torch.randint(0, 2**40, (bs, block)), torch.randint(0, 99, (bs, block))
    candidates = torch.randint(0, 2**40, (bs, block - 1, k))
    log_probs, transitions = -torch.rand(bs, block - 1, k), torch.randn(bs, block - 1, k, k)
    packing = Packing(k, has_transitions)
    packed = packing.pack(tokens, candidates, log_probs, transitions)
    assert packed.dtype == torch.int64 and packed.shape[0] == bs * block
    out = packing.unpack(packed, positions)
    assert torch.equal(out.tokens, tokens) and torch.equal(out.candidates, candidates) and out.positions is positions
    assert torch.equal(out.log_probs, log_probs.double())
    assert torch.equal(out.transitions, transitions.double()) if has_transitions else out.transitions is None
    # Views: a round computes nothing to read them.
    place = packed.untyped_storage().data_ptr()
    assert all(t.untyped_storage().data_ptr() == place for t in (out.tokens, out.log_probs))


def test_a_pass_hands_on_path_and_candidates():
    block, k, weight = 4, 3, torch.randn(VOCAB, HIDDEN)
    hidden, ids = torch.randn(2 * block, HIDDEN), torch.randint(0, VOCAB, (2 * block,))
    packing = Packing(k, False)
    packed = Candidates(WholeHead(weight), PLAIN, packing, block)(hidden, ids)
    out = packing.unpack(packed, torch.zeros(2, block))
    assert out.tokens[:, 0].tolist() == ids.view(2, block)[:, 0].tolist()
    assert torch.equal(out.tokens[:, 1:], out.candidates[..., 0])
    for request in range(2):
        for position in range(block - 1):
            logits = (hidden.view(2, block, -1)[request, position + 1] @ weight.T).tolist()
            wanted = ranked_by_hand(logits, k)
            assert out.candidates[request, position].tolist() == [token for token, _ in wanted]


@pytest.mark.parametrize("k", [2, 3, 5])
def test_a_selectors_path_and_its_scores_of_pairs(k):
    """Whatever is wanted, the path is the one that a pass without candidates would draft."""
    block, weight = 4, torch.randn(VOCAB, HIDDEN)
    config = SimpleNamespace(
        selector=SimpleNamespace(rank=5, top_k=3),
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        output_multiplier=1.5,
        final_logit_softcapping=8.0,
    )
    selector = CandidateSelector(config)
    for parameter in selector.parameters():
        parameter.data.normal_()
    hidden, ids = torch.randn(2 * block, HIDDEN), torch.randint(0, VOCAB, (2 * block,))
    path = SelectedPath(WholeHead(weight), selector, config, block)
    packing = Packing(k, True)
    packed = SelectedCandidates(WholeHead(weight), path, packing, block)(hidden, ids)
    out = packing.unpack(packed, torch.zeros(2, block))
    assert torch.equal(out.tokens, path(hidden, ids).view(2, block))
    assert out.transitions.shape == (2, block - 1, k, k) and bool((out.log_probs.diff(dim=-1) <= 0).all())
    rows = hidden.view(2, block, -1)
    for position in range(block - 1):
        weights = selector.hidden_projection(rows[0, position + 1])
        before = out.candidates[0, position - 1] if position else out.tokens[0, :1].expand(k)
        for p, predecessor in enumerate(before.tolist()):
            for c, candidate in enumerate(out.candidates[0, position].tolist()):
                pair = selector.predecessor_codebook[predecessor] * weights * selector.successor_codebook[candidate]
                assert out.transitions[0, position, p, c].item() == pytest.approx(pair.sum().item(), abs=1e-4)
