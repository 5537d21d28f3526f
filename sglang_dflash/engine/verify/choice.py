"""The target's own next token after every node: its argmax, or a sample of its distribution.

Drafts are point masses, so keeping a node iff it equals the target's sample leaves the distribution
exactly the target's (Leviathan et al., arXiv 2211.17192, with a point-mass draft).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from sglang_dflash.engine.verify.rules import Rule
from sglang_dflash.host.logits_api import CappedLogits, ShardedLogits, WholeLogits
from sglang_dflash.host.sampler_api import repeat_per_node
from sglang_dflash.host.worker_api import LogitsProcessorOutput
from sglang_dflash.types import Proposal


def is_argmax(sampling_info, rules: Sequence[Rule] = ()) -> bool:
    """True where every request takes the most likely token of the logits as they are."""
    return not rules and (sampling_info is None or sampling_info.is_all_greedy)


class Choice(NamedTuple):
    """The target's token after every node, and what it was chosen from."""

    tokens: torch.Tensor  # [bs, W] int64
    logits: torch.Tensor | None  # [bs * W, V], after rules and before temperature; None unless they were to be kept
    masks: Any  # SGLang's sampling masks of all nodes, where a request that samples asks for them


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

    def __call__(
        self, logits: torch.Tensor, batch, proposal: Proposal, rules: Sequence[Rule] = (), keep: bool = False
    ) -> Choice:
        """logits [bs * W, V or a shard of it] of ``proposal`` -> the target's tokens.

        rules: those that ``batch`` wants. Whole logits are changed in place. keep: logits are wanted, too.
        """
        info, width = batch.sampling_info, proposal.tokens.shape[1]
        if is_argmax(info, rules) and not keep:
            kept, masks, chosen, greedy = None, None, self._logits_of.argmax(logits), True
        else:
            logits = kept = self._logits_of.whole(logits)
            for rule in rules:
                rule.apply(logits.view(-1, width, logits.shape[-1]), batch, proposal)
            greedy = info is None or info.is_all_greedy
            if greedy:
                chosen, masks = logits.argmax(dim=-1), None
            else:
                # The sampler makes probabilities of its logits, in place.
                given = logits.clone() if keep else logits
                chosen, masks = self._sample(given, proposal.positions.view(-1), info, width)
        self._sync(chosen, greedy)
        return Choice(chosen.view(-1, width), kept if keep else None, masks)

    def _sample(self, logits: torch.Tensor, positions: torch.Tensor, sampling_info, width: int):
        output = LogitsProcessorOutput(next_token_logits=logits)
        tokens = self._runner.sampler(output, repeat_per_node(sampling_info, width), False, [], [], positions)
        return tokens.long(), output.sampling_mask_output
