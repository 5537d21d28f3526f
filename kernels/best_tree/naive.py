"""The best tree on the host, with a heap; what the CPU serves with."""

import heapq
import itertools

import torch


def best_tree(
    anchors: torch.Tensor,
    candidates: torch.Tensor,
    log_probs: torch.Tensor,
    order: torch.Tensor | None,
    width: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The ``width - 1`` most likely paths below each anchor, as a tree (best first, arXiv 2604.12989).

    anchors [bs] int64; candidates [bs, S, K] int64, none twice at a position. log_probs float64, none above 0:
    [bs, S, K], descending, where positions are independent, and ``order`` None; or [bs, S, K, K], the r-th best
    continuation of predecessor p as (p, r), with ``order`` of that shape, int64: which candidate it is. All
    predecessors of the first position are the anchor. A path's score is the sum over its nodes; of equal
    scores the one found first counts.

    -> tokens [bs, width] int64, parents [bs, width] int32 (root -1, every node behind its parent), depths [bs, width]
    int64 (root 0). Where the candidates have fewer paths, the nodes behind them are padding: token 0, parent -1,
    depth 0.
    """
    rows = zip(
        anchors.tolist(),
        candidates.tolist(),
        log_probs.tolist(),
        itertools.repeat(None) if order is None else order.tolist(),
        strict=False,
    )
    tokens, parents, depths = zip(*(_tree(*row, width) for row in rows), strict=True)
    device = candidates.device
    return (
        torch.tensor(tokens, device=device),
        torch.tensor(parents, dtype=torch.int32, device=device),
        torch.tensor(depths, device=device),
    )


def _tree(anchor: int, candidates, log_probs, order, width: int) -> tuple[list[int], list[int], list[int]]:
    """One request's tokens, parents and depths.

    The frontier holds, of every node taken, its best continuation and its next best sibling. An entry is (-score,
    number, parent, parent's score, depth, predecessor, rank).
    """
    positions, k = len(candidates), len(candidates[0])
    tokens, parents, depths = [anchor], [-1], [0]

    def ranked(depth: int, predecessor: int) -> list[float]:
        return log_probs[depth] if order is None else log_probs[depth][predecessor]

    frontier = [(-ranked(0, 0)[0], 0, 0, 0.0, 1, 0, 0)]
    while frontier and len(tokens) < width:
        score, _, parent, above, depth, predecessor, rank = heapq.heappop(frontier)
        node = len(tokens)
        which = rank if order is None else order[depth - 1][predecessor][rank]
        tokens.append(candidates[depth - 1][which])
        parents.append(parent)
        depths.append(depth)
        if depth < positions:
            child = -score + ranked(depth, which)[0]
            heapq.heappush(frontier, (-child, 2 * node - 1, node, -score, depth + 1, which, 0))
        if rank + 1 < k:
            sibling = above + ranked(depth - 1, predecessor)[rank + 1]
            heapq.heappush(frontier, (-sibling, 2 * node, parent, above, depth, predecessor, rank + 1))
    padding = width - len(tokens)
    return tokens + [0] * padding, parents + [-1] * padding, depths + [0] * padding
