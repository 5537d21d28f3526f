"""Torch twin of the selector's path; what the CPU serves with."""

from typing import NamedTuple

import torch
import torch.nn.functional as F


class Transform(NamedTuple):
    """What a draft's logits go through before they are added to transitions."""

    multiplier: float
    cap: float | None  # soft cap: cap * tanh(logit / cap)

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """logits of any shape, transformed."""
        if self.multiplier != 1.0:
            logits = logits * self.multiplier
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


def selected_path(
    anchors: torch.Tensor,
    candidates: torch.Tensor,
    logits: torch.Tensor,
    weights: torch.Tensor,
    predecessors: torch.Tensor,
    successors: torch.Tensor,
    transform: Transform,
) -> torch.Tensor:
    """The anchor and the token of every further position, [bs, S + 1] int64: each the best after the one before it.

    anchors [bs] int64, any distance apart; candidates [bs, S, K] int64 and their logits [bs, S, K]; weights
    [bs, S, rank]: the position's hidden state, projected; codebooks predecessors, successors [vocabulary, rank].
    Candidate c after token p scores transform(logit) + sum(predecessors[p] * weights * successors[c]); of equal
    scores the first counts.
    """
    scores = transition_scores(anchors, candidates, transform(logits.float()), weights, predecessors, successors)
    tokens = candidates.gather(2, greedy_path(scores).unsqueeze(2)).squeeze(2)
    return torch.cat((anchors.unsqueeze(1), tokens), 1)


def transition_scores(anchors, candidates, logits, weights, predecessors, successors) -> torch.Tensor:
    """Score of candidate c after predecessor p, [bs, S, K, K] as (p, c); arguments as in ``selected_path``.

    The anchor is every predecessor of the first position.
    """
    first = anchors[:, None, None].expand(-1, 1, candidates.shape[2])
    before = F.embedding(torch.cat((first, candidates[:, :-1]), 1), predecessors)
    transitions = (before * weights.unsqueeze(2)) @ F.embedding(candidates, successors).mT
    return logits.unsqueeze(2) + transitions


def greedy_path(scores: torch.Tensor) -> torch.Tensor:
    """Candidate [bs, S] of every position: the best one after the one chosen before it.

    A position maps its predecessor's candidate to its own. The maps are composed by doubling, so that a walk of S
    steps takes log2(S) operations.
    """
    maps = scores.argmax(-1)
    reach = 1
    while reach < maps.shape[1]:
        composed = maps[:, reach:].gather(2, maps[:, :-reach])
        maps = torch.cat((maps[:, :reach], composed), 1)
        reach *= 2
    # All of the first position's predecessors are the anchor.
    return maps[:, :, 0]
