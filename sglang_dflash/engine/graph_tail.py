"""What follows a greedy verify pass, inside its graph: argmax, acceptance and injection need no launches of their own.

The graph computes all three for every batch that it serves. A batch that samples drops the outcome: its own acceptance
is computed after the pass, and its injection overwrites the graph's, whose further rows lie behind the new prefix,
where nothing reads them before the next round writes them.
"""

import torch

from sglang_dflash.engine.commit.inject import ContextInjector, Features
from sglang_dflash.engine.verify.choice import is_argmax
from sglang_dflash.host.graph_api import add_to_graphs, replayed_size, translates_slots
from sglang_dflash.kernels import accept
from sglang_dflash.types import Acceptance, empty_acceptance


class NoTail:
    """Where no graphs are captured, or the choice is not the graph's to make."""

    def take(self, result, sampling_info, accepted: Acceptance) -> bool:
        """False: acceptance and injection are still to do."""
        return False


class GraphTail:
    """For chains on one rank: on more, the ranks agree on the choice outside of the graph."""

    def __init__(self, target_runner, width: int, inject: ContextInjector):
        """Call before the target's graphs are captured."""
        self._runner, self._width, self._inject = target_runner, width, inject
        self._device = torch.device(target_runner.device)
        self._accept = accept.choose(self._device.type)
        self._steps = torch.arange(width, device=self._device)
        self._outcomes: dict[int, Acceptance] = {}  # by the graph's size
        add_to_graphs(target_runner, self.capture)

    @torch.no_grad()
    def capture(self, graph_runner, output, forward_batch, num_tokens: int) -> None:
        """SGLang's hook: runs while a graph of ``num_tokens`` = size * W rows is warmed up and captured."""
        features = getattr(output, "hidden_states", None)
        if features is None or not forward_batch.forward_mode.is_target_verify() or translates_slots(self._runner):
            return
        size = num_tokens // self._width
        if size not in self._outcomes:
            # Not in the graph's own memory, which the next graph writes over.
            self._outcomes[size] = empty_acceptance(size, self._width, self._device)
        accepted, prefix_lens = self._outcomes[size], forward_batch.seq_lens
        chosen = output.next_token_logits.argmax(dim=-1).view(size, self._width)
        self._accept(forward_batch.input_ids.view(size, self._width), chosen, None, prefix_lens, accepted)
        # Not the batch's own positions: some models count them from 1, in place.
        positions = (prefix_lens.unsqueeze(1) + self._steps).view(-1)
        self._inject(Features(features, positions, forward_batch.out_cache_loc, accepted.commit_lens))

    def take(self, result, sampling_info, accepted: Acceptance) -> bool:
        """Fill ``accepted`` [bs] from the graph of this pass and return True, or return False.

        result: GenerationBatchResult of the verify pass.
        """
        if not result.can_run_cuda_graph or not is_argmax(sampling_info):
            return False
        # The first round after an update of the draft's weights ran before they were packed again.
        outcome = self._outcomes.get(replayed_size(self._runner)) if self._inject.up_to_date else None
        if outcome is None:
            return False
        bs = accepted.bonus.numel()
        torch._foreach_copy_(list(accepted), [field[:bs] for field in outcome])
        return True
