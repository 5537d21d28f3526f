"""Test double of a proposer that reads candidates: the draft's path, and the runner-up beside every node of it.

Served with ``SGLANG_DFLASH_PROPOSER=spread:SpreadTree`` and this folder on PYTHONPATH. It checks what it is given.
"""

import torch

from sglang_dflash.host.widths import verify_width
from sglang_dflash.types import Drafted, Proposal, Shape


class SpreadTree:
    """Nodes 2d - 1 and 2d are the path's token at depth d and another candidate there."""

    candidates = 3

    def __init__(self, chain, device: torch.device):
        self._depth = (verify_width() - 1) // 2
        self.shape = Shape.tree(verify_width(), self._depth + 1)

    def __call__(self, drafted: Drafted) -> Proposal:
        bs, depth = drafted.tokens.shape[0], self._depth
        assert drafted.candidates.shape == drafted.log_probs.shape == (bs, drafted.tokens.shape[1] - 1, 3)
        assert bool((drafted.log_probs <= 1e-5).all()) and bool((drafted.log_probs.diff(dim=-1) <= 0).all())
        assert bool((drafted.log_probs.exp().sum(-1) <= 1 + 1e-4).all())
        tokens = torch.zeros(bs, self.shape.width, dtype=torch.int64)
        parents = torch.full((bs, self.shape.width), -1, dtype=torch.int32)
        depths = torch.zeros(bs, self.shape.width, dtype=torch.int64)
        tokens[:, 0] = drafted.tokens[:, 0]
        for d in range(1, depth + 1):
            best, ranked = drafted.tokens[:, d], drafted.candidates[:, d - 1]
            tokens[:, 2 * d - 1] = best
            tokens[:, 2 * d] = torch.where(ranked[:, 0] == best, ranked[:, 1], ranked[:, 0])
            parents[:, 2 * d - 1 : 2 * d + 1] = max(0, 2 * d - 3)
            depths[:, 2 * d - 1 : 2 * d + 1] = d
        return Proposal(tokens, parents, drafted.positions[:, :1] + depths)
