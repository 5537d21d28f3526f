"""Draft trees: the most likely paths through the candidates of a block (arXiv 2604.12989)."""

import torch

from sglang_dflash.kernels import best_tree
from sglang_dflash.types import Drafted, Proposal, Shape


class TreeProposer:
    """Proposes the anchor and the ``width - 1`` most likely paths below it, with up to ``branching`` children a node.

    A path's score is the product of its tokens' probabilities, as the draft sees them: position by position, or after
    the token before where the draft scores pairs (DFlash 2). No two children of a node share a token.
    """

    def __init__(self, width: int, block_size: int, branching: int, device: torch.device, beyond: bool = False):
        """beyond: a continuation of the context competes for nodes, and may lead deeper than the block."""
        self.shape = Shape.tree(width, width if beyond else min(width, block_size))
        self.candidates = branching
        self._best_tree = best_tree.choose(device.type)

    def __call__(self, drafted: Drafted) -> Proposal:
        """-> tree of [bs, W] nodes; padding where the candidates have fewer paths."""
        log_probs, order = drafted.log_probs, None
        assert log_probs is not None and drafted.candidates is not None  # asked for
        if drafted.transitions is not None:
            log_probs, order = continuations(log_probs, drafted.transitions)
        anchors, width = drafted.tokens[:, 0], self.shape.width
        tokens, parents, depths = self._best_tree(
            anchors, drafted.candidates, log_probs, order, width, drafted.continuation
        )
        return Proposal(tokens, parents, drafted.positions[:, :1] + depths)


def continuations(log_probs: torch.Tensor, transitions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """log_probs [bs, S, K], transitions [bs, S, K, K] as (predecessor, candidate) -> log-probabilities of the
    candidates after each predecessor, descending, and which they are, both [bs, S, K, K].

    A pair's score moves probability between a position's candidates; together they keep what they had.
    """
    scores = (log_probs.unsqueeze(2) + transitions).log_softmax(-1)
    together = log_probs.logsumexp(-1)[..., None, None]
    best, order = scores.sort(dim=-1, descending=True, stable=True)
    return best + together.clamp(max=0.0), order
