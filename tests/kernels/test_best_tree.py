"""The best tree against exhaustive search over all paths."""

import itertools
import math

import kernel_inputs as inputs
import pytest
import torch

from sglang_dflash.engine.proposal.tree import TreeProposer, continuations
from sglang_dflash.kernels.best_tree.naive import best_tree
from sglang_dflash.types import Drafted

CPU = torch.device("cpu")


def every_path(log_probs, order) -> dict[tuple[int, ...], float]:
    """Score of every path of candidates, one request: the sum over its nodes."""
    scores = {}
    positions, k = log_probs.shape[0], log_probs.shape[-1]
    for depth in range(1, positions + 1):
        for path in itertools.product(range(k), repeat=depth):
            score, before = 0.0, 0
            for d, candidate in enumerate(path):
                if order is None:
                    score += log_probs[d, candidate].item()
                else:
                    rank = order[d, before].tolist().index(candidate)
                    score += log_probs[d, before, rank].item()
                before = candidate
            scores[path] = score
    return scores


def paths_of(tokens, parents, depths, candidates) -> list[tuple[int, ...]]:
    """The path of candidates that leads to every node but the root, checking depths and parents."""
    found: list[tuple[int, ...]] = [()]
    for node in range(1, len(tokens)):
        parent = parents[node].item()
        assert 0 <= parent < node and depths[node] == depths[parent] + 1
        found.append((*found[parent], candidates[depths[node] - 1].tolist().index(tokens[node].item())))
    return found[1:]


@pytest.mark.parametrize("pairs", [False, True], ids=["independent", "pairs"])
@pytest.mark.parametrize(
    ("positions", "k", "width"), [(1, 3, 4), (3, 1, 3), (3, 2, 8), (4, 3, 2), (4, 3, 20), (2, 4, 21)]
)
def test_the_most_likely_paths_are_taken_and_no_others(positions, k, width, pairs):
    for seed in range(4):
        anchors, candidates, log_probs, order = inputs.tree_case(2, positions, k, pairs, "cpu", seed)[0]
        tokens, parents, depths = best_tree(anchors, candidates, log_probs, order, width)
        assert torch.equal(tokens[:, 0], anchors) and (parents[:, 0] == -1).all() and (depths[:, 0] == 0).all()
        for b in range(2):
            own_order = None if order is None else order[b]
            scores = every_path(log_probs[b], own_order)
            best = sorted(scores.values(), reverse=True)[: width - 1]
            found = paths_of(tokens[b], parents[b], depths[b], candidates[b])
            assert len(set(found)) == width - 1
            assert [scores[path] for path in found] == pytest.approx(best, abs=1e-9)


def every_node(k, candidates, log_probs, order, context, steps) -> dict[tuple[int, ...], float]:
    """Score of every path of tokens, one request, of which each node has its K best children only."""
    scores: dict[tuple[int, ...], float] = {}
    waiting: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    while waiting:
        path, score = waiting.pop()
        depth, below = len(path), {}
        known = order is None or depth == 0 or (depth <= len(candidates) and path[-1] in candidates[depth - 1])
        if depth < len(candidates) and known:
            before = 0 if depth == 0 or order is None else candidates[depth - 1].index(path[-1])
            for rank in range(k):
                which = rank if order is None else order[depth][before][rank]
                below[candidates[depth][which]] = (log_probs[depth] if order is None else log_probs[depth][before])[
                    rank
                ]
        if path == tuple(context[:depth]) and depth < len(context):
            below[context[depth]] = max(steps[depth], below.get(context[depth], -math.inf))
        for token, step in sorted(below.items(), key=lambda entry: -entry[1])[:k]:
            if step > -math.inf:
                scores[*path, token] = score + step
                waiting.append(((*path, token), score + step))
    return scores


@pytest.mark.parametrize("pairs", [False, True], ids=["independent", "pairs"])
@pytest.mark.parametrize(
    ("positions", "k", "width", "length"), [(1, 3, 4, 6), (3, 1, 9, 5), (3, 2, 8, 2), (4, 3, 20, 9), (2, 4, 21, 1)]
)
def test_a_continuation_competes_on_equal_terms(positions, k, width, length, pairs):
    for seed in range(12):
        anchors, candidates, log_probs, order = inputs.tree_case(2, positions, k, pairs, "cpu", seed)[0]
        context = inputs.context_case(candidates, length, "cpu", seed)[0]
        tokens, parents, depths = best_tree(anchors, candidates, log_probs, order, width, context)
        for b in range(2):
            own_order = None if order is None else order[b].tolist()
            rows = candidates[b].tolist(), log_probs[b].tolist(), own_order
            scores = every_node(k, *rows, context.tokens[b].tolist(), context.log_probs[b].tolist())
            best = sorted(scores.values(), reverse=True)[: width - 1]
            found = [()]
            for node in range(1, width):
                parent = parents[b, node].item()
                if parent >= 0:
                    assert parent < node and depths[b, node] == depths[b, parent] + 1
                    found.append((*found[parent], tokens[b, node].item()))
            # No two siblings share a token, and no node has more children than it may.
            assert len(set(found)) == len(found) == 1 + len(best)
            assert max(parents[b, 1:].bincount(minlength=1).tolist() if len(best) == width - 1 else [0]) <= k
            assert [scores[path] for path in found[1:]] == pytest.approx(best, abs=1e-9)


def test_where_the_candidates_have_fewer_paths_the_rest_is_padding():
    anchors, candidates, log_probs, order = inputs.tree_case(2, 2, 2, False, "cpu", 0)[0]
    tokens, parents, depths = best_tree(anchors, candidates, log_probs, order, 9)
    assert (parents[:, 1:7] >= 0).all() and (parents[:, 7:] == -1).all()
    assert not tokens[:, 7:].any() and not depths[:, 7:].any()


def test_pairs_move_probability_between_candidates_of_a_position():
    log_probs = torch.tensor([[[0.5, 0.3], [0.6, 0.2]]], dtype=torch.float64).log()
    transitions = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    # After the runner-up, the other candidate is twice as likely.
    transitions[0, 1, 1] = torch.tensor([0.0, math.log(6.0)])
    best, order = continuations(log_probs, transitions)
    assert best[0, 0].exp().flatten().tolist() == pytest.approx([0.5, 0.3] * 2)
    assert best[0, 1].exp().flatten().tolist() == pytest.approx([0.6, 0.2, 0.8 * 2 / 3, 0.8 / 3])
    assert order[0, 1].tolist() == [[0, 1], [1, 0]]


def test_a_tree_of_one_child_a_node_is_the_chain():
    tokens = torch.tensor([[7, 5, 6, 9]])
    log_probs = torch.tensor([[[-0.1], [-2.0], [-0.3]]], dtype=torch.float64)
    drafted = Drafted(tokens, torch.arange(20, 24).view(1, 4), tokens[:, 1:].unsqueeze(2), log_probs)
    proposal = TreeProposer(4, 4, 1, CPU)(drafted)
    assert torch.equal(proposal.tokens, tokens) and proposal.parents.tolist() == [[-1, 0, 1, 2]]
    assert torch.equal(proposal.positions, drafted.positions)


@pytest.mark.parametrize(("width", "deepest"), [(5, 5), (32, 16)])
def test_no_node_is_deeper_than_the_block(width, deepest):
    assert TreeProposer(width, 16, 4, CPU).shape == ("tree", width, deepest)
