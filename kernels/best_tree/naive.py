"""The best tree on the host, with a heap; what the CPU serves with."""

import heapq
import itertools
from collections.abc import Sequence

import torch

from sglang_dflash.types import Continuation


def best_tree(
    anchors: torch.Tensor,
    candidates: torch.Tensor,
    log_probs: torch.Tensor,
    order: torch.Tensor | None,
    width: int,
    context: Continuation | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The ``width - 1`` most likely paths below each anchor, as a tree (best first, arXiv 2604.12989).

    anchors [bs] int64; candidates [bs, S, K] int64, none twice at a position. log_probs float64, none above 0:
    [bs, S, K], descending, where positions are independent, and ``order`` None; or [bs, S, K, K], the r-th best
    continuation of predecessor p as (p, r), with ``order`` of that shape, int64: which candidate it is. All
    predecessors of the first position are the anchor. A path's score is the sum over its nodes; of equal
    scores the one found first counts.

    context: one more path, which may be deeper than S. Where it agrees with candidates, a node has the better of the
    two scores; where it does not, it is one more child of its parent, below which independent positions go on (pairs
    do not: its token is nobody's candidate). No node has more than K children.

    -> tokens [bs, width] int64, parents [bs, width] int32 (root -1, every node behind its parent), depths [bs, width]
    int64 (root 0). Where the candidates have fewer paths, the nodes behind them are padding: token 0, parent -1,
    depth 0.
    """
    rows = zip(
        anchors.tolist(),
        candidates.tolist(),
        log_probs.tolist(),
        itertools.repeat(None) if order is None else order.tolist(),
        itertools.repeat(()) if context is None else context.tokens.tolist(),
        itertools.repeat(()) if context is None else context.log_probs.tolist(),
        strict=False,
    )
    trees = [_Tree(*row) for row in rows]
    for tree in trees:
        tree.grow(width)
    device = candidates.device
    return (
        torch.tensor([tree.tokens for tree in trees], device=device),
        torch.tensor([tree.parents for tree in trees], dtype=torch.int32, device=device),
        torch.tensor([tree.depths for tree in trees], device=device),
    )


class _Tree:
    """One request's. The frontier holds, of every node taken, its best continuation and its next best sibling, as
    (-score, number, parent, parent's score, depth, predecessor, rank); the context's next node stands beside it.
    """

    def __init__(self, anchor: int, candidates, log_probs, order, context: Sequence[int], steps: Sequence[float]):
        self.tokens, self.parents, self.depths = [anchor], [-1], [0]
        self._candidates, self._log_probs, self._order = candidates, log_probs, order
        self._positions, self._k = len(candidates), len(candidates[0])
        self._frontier: list[tuple] = []
        self._context, self._steps = context, steps
        # The node that the context goes on from, how deep it is, and its score.
        self._at, self._depth, self._score = 0, 0, 0.0
        self._given: dict[int, int] = {}  # node -> its child that the context gave it
        self._children = [0]  # of each node

    def grow(self, width: int) -> None:
        """Take the best until there are ``width`` nodes, and pad where there are fewer."""
        self._push(1, 0, 0, 0.0, 0)
        while len(self.tokens) < width:
            best = -self._frontier[0][0] if self._frontier else -float("inf")
            if self._depth < len(self._steps) and self._score + self._steps[self._depth] > best:
                self._take_context(self._score + self._steps[self._depth])
            elif self._frontier:
                self._take_candidate(*heapq.heappop(self._frontier))
            else:
                break
        padding = width - len(self.tokens)
        self.tokens += [0] * padding
        self.parents += [-1] * padding
        self.depths += [0] * padding

    def _push(self, number: int, node: int, depth: int, score: float, which: int) -> None:
        """The best candidate below ``node``, which is candidate ``which`` of its position."""
        if depth < self._positions:
            ranked = self._log_probs[depth] if self._order is None else self._log_probs[depth][which]
            heapq.heappush(self._frontier, (-score - ranked[0], number, node, score, depth + 1, which, 0))

    def _add(self, token: int, parent: int, depth: int) -> int:
        self.tokens.append(token)
        self.parents.append(parent)
        self.depths.append(depth)
        self._children.append(0)
        self._children[parent] += 1
        return len(self.tokens) - 1

    def _take_candidate(self, minus_score, number, parent, above, depth, before, rank) -> None:
        which = rank if self._order is None else self._order[depth - 1][before][rank]
        token = self._candidates[depth - 1][which]
        if parent not in self._given or self.tokens[self._given[parent]] != token:
            if self._children[parent] == self._k:
                return
            node = self._add(token, parent, depth)
            number = 2 * node
            self._push(number - 1, node, depth, -minus_score, which)
            if parent == self._at and self._depth < len(self._steps) and token == self._context[self._depth]:
                self._at, self._depth, self._score = node, depth, -minus_score
        if rank + 1 < self._k:
            ranked = self._log_probs[depth - 1] if self._order is None else self._log_probs[depth - 1][before]
            entry = (-above - ranked[rank + 1], number, parent, above, depth, before, rank + 1)
            heapq.heappush(self._frontier, entry)

    def _take_context(self, score: float) -> None:
        if self._children[self._at] == self._k:
            self._depth = len(self._steps)
            return
        token, depth = self._context[self._depth], self._depth + 1
        node = self._given[self._at] = self._add(token, self._at, depth)
        if self._order is None:
            self._push(2 * node - 1, node, depth, score, 0)
        elif depth <= self._positions and token in self._candidates[depth - 1]:
            self._push(2 * node - 1, node, depth, score, self._candidates[depth - 1].index(token))
        self._at, self._depth, self._score = node, depth, score
