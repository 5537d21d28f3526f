"""The verify pass: the target over all nodes of a proposal at once."""

from typing import Any, NamedTuple

import torch

from sglang_dflash.engine.verify.trees import MaskedTree, PlainTree
from sglang_dflash.errors import DFlashError
from sglang_dflash.host.graph_api import replayed_size
from sglang_dflash.host.worker_api import CaptureHiddenMode, DFlashVerifyInput
from sglang_dflash.types import Proposal


class Verified(NamedTuple):
    """What one verify pass gives."""

    output: Any  # LogitsProcessorOutput; next_token_logits [bs * W, V], hidden_states taken out
    features: torch.Tensor  # [bs * W, K * hidden], valid until the next target pass
    result: Any  # GenerationBatchResult of the target worker
    graph_size: int | None  # requests, padding included, of the captured graph that ran; None: none did


class TargetPass:
    """Runs the target over a proposal, in SGLang's own graphs where they were captured."""

    def __init__(self, target_worker, columns: slice | None, tree_form: PlainTree | MaskedTree | None):
        """columns: those of the round's window of slots that the nodes take, None for all.

        tree_form: None where only chains are proposed.
        """
        self._target_worker, self._tree_form = target_worker, tree_form
        self.columns = columns

    def __call__(self, batch, proposal: Proposal, plan, host_lens: torch.Tensor) -> Verified:
        """plan: the round's KV slots; host_lens [bs] on the host, upper bound of prefix + W."""
        verify_input = DFlashVerifyInput(
            draft_token=proposal.tokens.view(-1),
            # A copy: some models count positions from 1, in place.
            positions=proposal.positions.flatten().clone(),
            draft_token_num=proposal.tokens.shape[1],
            capture_hidden_mode=CaptureHiddenMode.FULL,
            kv_loc_plan=plan,
            kv_loc_cols=self.columns,
        )
        if proposal.parents is not None:
            assert self._tree_form is not None  # a lane of trees has one
            self._tree_form(verify_input, proposal, batch.seq_lens, host_lens)
        batch.out_cache_loc = plan.virtual_write_ids(cols=self.columns)
        # The scheduler restores its batch after every round (forward isolation), also on errors.
        batch.seq_lens_cpu, batch.seq_lens_sum = host_lens, sum(host_lens.tolist())
        forward_batch, in_graph = verify_input.prepare_for_verify(batch, self._target_worker)
        result = self._target_worker.forward_batch_generation(
            batch=None, forward_batch=forward_batch, is_verify=True, skip_attn_backend_init=True
        )
        output = result.logits_output
        if output.hidden_states is None:
            raise DFlashError("target", "returned no hidden states", "use a target class that captures DFlash layers")
        features, output.hidden_states = output.hidden_states, None
        size = replayed_size(self._target_worker.model_runner) if in_graph else None
        return Verified(output, features, result, size)
