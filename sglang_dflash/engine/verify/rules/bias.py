"""Logit bias: a number per request and token, the same at every node."""

import torch

from sglang_dflash.engine.verify.rules.rule import Rule
from sglang_dflash.types import Proposal


class LogitBias(Rule):
    """``logit_bias`` of a request."""

    def wanted(self, batch) -> bool:
        """SGLang keeps a [bs, V] tensor where a request has a bias."""
        return batch.sampling_info is not None and batch.sampling_info.logit_bias is not None

    def apply(self, logits: torch.Tensor, batch, proposal: Proposal) -> None:
        """logits [bs, W, V]."""
        logits.add_(batch.sampling_info.logit_bias[:, None])
