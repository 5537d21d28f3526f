"""Commit of hybrid targets: the recurrent state of the last accepted node, then what every target commits."""

import torch

from sglang_dflash.engine.commit.paths import ChainCommit, TreeCommit
from sglang_dflash.host.recurrent_state import commit_states
from sglang_dflash.types import Acceptance, Features, Proposal


class StateCommit:
    """Wraps the commit of a chain or a tree: a node's recurrent state is the same question for both."""

    def __init__(self, paths: ChainCommit | TreeCommit, target_worker):
        self._paths, self._target_worker = paths, target_worker

    def __call__(
        self, batch, proposal: Proposal, accepted: Acceptance, slots: torch.Tensor, hidden: torch.Tensor
    ) -> Features:
        """slots [bs, W], hidden [bs * W, K * hidden] -> the committed tokens' features."""
        commit_states(self._target_worker, batch, accepted, proposal.tokens.shape[1])
        return self._paths(batch, proposal, accepted, slots, hidden)
