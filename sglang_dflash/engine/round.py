"""One decode round of a batch: draft -> propose -> verify -> accept -> commit -> inject.

The steps hand each other the values of ``types``; what varies with the shape of the round is a lane, built when the
worker was.
"""

import torch

from sglang_dflash.engine.draft_state import DraftState
from sglang_dflash.engine.lane import Lane
from sglang_dflash.engine.verify.choice import is_argmax
from sglang_dflash.engine.verify.reports import report
from sglang_dflash.engine.verify.rules import Rules
from sglang_dflash.engine.verify.target import Verified
from sglang_dflash.host.worker_api import GenerationBatchResult
from sglang_dflash.kernels import accept, prepare_block
from sglang_dflash.types import Acceptance, BlockInputs


class Round:
    """The pipeline. Called once per scheduler iteration with decoding requests."""

    def __init__(self, target_runner, draft_translator, mask_token_id: int, rules: Rules, observer):
        """draft_translator: names KV slots as the draft's pool does; observer: sees stages and rounds."""
        self._target_runner, self._draft_translator = target_runner, draft_translator
        self._mask_token_id, self._rules, self._observer = mask_token_id, rules, observer
        device_type = torch.device(target_runner.device).type
        self._prepare_block = prepare_block.choose(device_type)
        self._accept = accept.choose(device_type)

    def __call__(self, lane: Lane, batch, state: DraftState, on_publish) -> GenerationBatchResult:
        """One round for ``batch`` (decoding); ``on_publish`` takes the new prefix lengths [bs]."""
        prefix_lens, bs, stage = batch.seq_lens, batch.seq_lens.numel(), self._observer.stage
        block, accepted = lane.buffers.next(bs)
        rules = self._rules.of(batch)
        with stage("prepare"):
            self._prepare(batch, state, block)
            plan = self._plan(batch, state, block.slots, extent=block.slots.numel() // bs)
            draft_bound, verify_bound = _host_bounds(batch, state, block.ids.numel() // bs, lane.shape.width)
        with stage("draft"):
            drafted = lane.draft(batch, block, plan, draft_bound)
        with stage("propose"):
            proposal = lane.propose(drafted)
            for rule in rules:
                proposal = rule.revise(batch, proposal)
        with stage("verify"):
            for rule in rules:
                rule.start(batch, proposal)
            verified = lane.verify(batch, proposal, plan, verify_bound)
        with stage("accept"):
            done = lane.tail.take(verified.graph_size, is_argmax(batch.sampling_info, rules), accepted)
            logits, masks = verified.output.next_token_logits, None
            if not done:
                chosen, logits, masks = lane.choose(logits, batch, proposal, rules, keep=batch.return_logprob)
                self._accept(proposal.tokens, chosen, proposal.parents, prefix_lens, accepted)
            if on_publish is not None:
                on_publish(accepted.new_prefix_lens)
            for rule in rules:
                rule.commit(batch, accepted)
            report(batch, verified.output, logits, masks, proposal, accepted)
        with stage("commit"):
            slots = plan.write_ids(self._draft_translator, cols=lane.verify.columns).view(bs, -1)
            features = lane.commit(batch, proposal, accepted, slots, verified.features)
        with stage("inject"):
            if not done:
                lane.tail.inject(verified.graph_size, features)
        self._observer.finish_round(batch.reqs, lane.shape)
        return _result(verified, accepted, lane.shape.width)

    def warm_up(self, lane: Lane) -> None:
        """Run the kernels around the two passes once: compiled at start, not in the first request."""
        lane.draft.warm_up()
        block, accepted = lane.buffers.next(1)
        zero, width = torch.zeros_like(accepted.bonus), lane.shape.width
        rows = self._target_runner.req_to_token_pool.req_to_token
        self._prepare_block(zero, zero, zero, rows, self._mask_token_id, block)
        tokens = zero.new_zeros(1, width)
        parents = torch.arange(-1, width - 1, dtype=torch.int32, device=zero.device).unsqueeze(0)
        self._accept(tokens, tokens + 1, parents if lane.shape.is_tree else None, zero, accepted)

    def _prepare(self, batch, state: DraftState, block: BlockInputs) -> None:
        rows = self._target_runner.req_to_token_pool.req_to_token
        self._prepare_block(
            state.bonus_tokens, batch.seq_lens, batch.req_pool_indices, rows, self._mask_token_id, block
        )

    def _plan(self, batch, state: DraftState, slots: torch.Tensor, extent: int):
        """The round's KV slots, planned once for draft, verify and injection."""
        return self._target_runner.kv_index_translator.plan(
            req_pool_indices=batch.req_pool_indices,
            seq_lens=batch.seq_lens,
            seq_lens_cpu=batch.seq_lens_cpu if batch.seq_lens_cpu is not None else state.nxt_kv_lens_cpu,
            write_virtual=slots,
            read_extent=extent,
        )


def _host_bounds(batch, state: DraftState, block_size: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Bounds [bs] on the host of prefix + B and prefix + W; the reserved lengths where no backend reads exact ones."""
    if batch.seq_lens_cpu is None:
        return state.nxt_kv_lens_cpu, state.nxt_kv_lens_cpu
    draft = batch.seq_lens_cpu + block_size
    return draft, draft if width == block_size else batch.seq_lens_cpu + width


def _result(verified: Verified, accepted: Acceptance, width: int) -> GenerationBatchResult:
    return GenerationBatchResult(
        logits_output=verified.output,
        next_token_ids=accepted.emitted.view(-1),
        accept_lens=accepted.commit_lens,
        new_seq_lens=accepted.new_prefix_lens,
        next_draft_input=DraftState.after(accepted.bonus, accepted.new_prefix_lens),
        can_run_cuda_graph=verified.result.can_run_cuda_graph,
        speculative_num_draft_tokens=width,
        speculative_output_stride=accepted.emitted.shape[1],
        routed_experts_output=verified.result.routed_experts_output,
        indexer_topk_output=verified.result.indexer_topk_output,
    )
