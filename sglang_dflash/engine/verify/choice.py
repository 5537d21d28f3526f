"""The target's own next token after every node: its argmax, or a sample of its distribution.

Drafts are point masses, so keeping a node iff it equals the target's sample leaves the distribution
exactly the target's (Leviathan et al., arXiv 2211.17192, with a point-mass draft).
"""

from collections.abc import Callable

import torch

from sglang_dflash.host.logits_api import CappedLogits, ShardedLogits, WholeLogits
from sglang_dflash.host.sampler_api import add_logit_bias, repeat_per_node
from sglang_dflash.host.worker_api import LogitsProcessorOutput


def is_argmax(sampling_info) -> bool:
    """True where every request takes the most likely token of the logits as they are."""
    return sampling_info is None or (sampling_info.is_all_greedy and sampling_info.logit_bias is None)


class TargetChoice:
    """Chooses by the same sampler, filters and seeds as plain decoding, one row per node."""

    def __init__(self, runner, logits_of: WholeLogits | CappedLogits | ShardedLogits, sync: Callable):
        """logits_of: reads the logits of a verify pass, whole or in shards of the vocabulary.

        sync: called with chosen tokens and whether they are greedy; tensor-parallel ranks agree on them in place.
        """
        self._runner, self._logits_of, self._sync = runner, logits_of, sync

    @property
    def shards(self) -> int:
        """Ranks over which a verify pass's rows of logits are split."""
        return self._logits_of.shards

    def __call__(self, logits: torch.Tensor, positions: torch.Tensor, sampling_info, width: int) -> torch.Tensor:
        """logits [bs * W, V or a shard of it], positions [bs * W] of the nodes -> chosen tokens [bs, W] int64."""
        if is_argmax(sampling_info):
            chosen, greedy = self._logits_of.argmax(logits), True
        else:
            logits, greedy = self._logits_of.whole(logits), sampling_info.is_all_greedy
            add_logit_bias(logits, sampling_info, width)
            chosen = logits.argmax(dim=-1) if greedy else self._sample(logits, positions, sampling_info, width)
        self._sync(chosen, greedy)
        return chosen.view(-1, width)

    def _sample(self, logits: torch.Tensor, positions: torch.Tensor, sampling_info, width: int) -> torch.Tensor:
        return self._runner.sampler(
            LogitsProcessorOutput(next_token_logits=logits),
            repeat_per_node(sampling_info, width),
            False,
            [],
            [],
            positions,
        ).long()
