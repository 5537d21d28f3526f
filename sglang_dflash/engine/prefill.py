"""Target prefill, and injection of the prompt's context features in the same call."""

import torch

from sglang_dflash.engine.commit.inject import ContextInjector
from sglang_dflash.engine.draft_state import DraftState
from sglang_dflash.engine.verify.rules import Rules
from sglang_dflash.errors import DFlashError
from sglang_dflash.host.reports_api import wanted_of_prefill
from sglang_dflash.host.worker_api import CaptureHiddenMode, GenerationBatchResult
from sglang_dflash.types import Features


def extend_positions(prefix_lens: list[int], extend_lens: list[int], device: torch.device) -> torch.Tensor:
    """Positions [sum(extend_lens)] int64 of the extended tokens, request after request.

    Built on the host from the scheduler's own lists, so that no device value is waited for, and for a GPU in pinned
    memory: a copy from any other may wait for the prefill that was queued before it.
    """
    lens, total = torch.tensor(extend_lens, dtype=torch.int64), sum(extend_lens)
    starts = torch.tensor(prefix_lens, dtype=torch.int64) - (lens.cumsum(0) - lens)
    positions = torch.arange(total, dtype=torch.int64, pin_memory=device.type == "cuda")
    positions += starts.repeat_interleave(lens, output_size=total)
    return positions.to(device, non_blocking=True)


class Prefill:
    """Runs before the call returns: the radix tree may take the slots at once, chunk by chunk."""

    def __init__(self, target_worker, draft_runner, inject: ContextInjector, rules: Rules, sync_tokens):
        self._target_worker, self._draft_runner = target_worker, draft_runner
        self._inject, self._rules, self._sync_tokens = inject, rules, sync_tokens

    def __call__(self, batch, on_publish) -> GenerationBatchResult:
        """Prefill ``batch`` (extend or mixed); its last tokens' samples are the first anchors."""
        rules = self._rules.of(batch)
        for rule in rules:
            rule.before_prefill(batch)
        result = self._target_worker.forward_batch_generation(
            batch, capture_hidden_mode=CaptureHiddenMode.FULL, return_kv_loc_plan=True
        )
        plan, result.kv_loc_plan = result.kv_loc_plan, None
        self._sync_tokens(result.next_token_ids)
        for rule in rules:
            rule.after_prefill(batch, result.next_token_ids)
        result.new_seq_lens = batch.seq_lens
        if on_publish is not None:
            on_publish(batch.seq_lens)
        hidden = result.logits_output.hidden_states
        if hidden is None:
            raise DFlashError("target", "returned no hidden states", "use a target class that captures DFlash layers")
        # The draft's own are not to be copied to the host with the result.
        output = result.logits_output
        output.hidden_states = (
            wanted_of_prefill(batch, output.last_hidden_states) if batch.return_hidden_states else None
        )
        self._inject(
            Features(
                hidden,
                extend_positions(batch.prefix_lens, batch.extend_lens, hidden.device),
                plan.write_ids(self._draft_runner.kv_index_translator),
                None,
            )
        )
        result.next_draft_input = DraftState.after(result.next_token_ids.long(), batch.seq_lens)
        return result
