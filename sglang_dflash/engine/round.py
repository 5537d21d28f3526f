"""One decode round of a batch: draft -> propose -> verify -> accept -> commit -> inject.

The steps hand each other the values of ``types``; what varies (which context the draft reads, what is
proposed, how acceptance is committed) is an object chosen when the worker was built.
"""

import torch

from sglang_dflash.engine.buffers import RoundBuffers
from sglang_dflash.engine.commit.inject import ContextInjector
from sglang_dflash.engine.commit.paths import ChainCommit, TreeCommit
from sglang_dflash.engine.commit.state import StateCommit
from sglang_dflash.engine.draft.runner import DraftRunner
from sglang_dflash.engine.draft_state import DraftState
from sglang_dflash.engine.graph_tail import GraphTail, NoTail
from sglang_dflash.engine.verify.choice import TargetChoice
from sglang_dflash.engine.verify.target import TargetPass
from sglang_dflash.host.worker_api import GenerationBatchResult
from sglang_dflash.kernels import accept, prepare_block
from sglang_dflash.types import Acceptance, BlockInputs


class Round:
    """The pipeline. Called once per scheduler iteration with decoding requests."""

    def __init__(
        self,
        *,
        target_runner,
        draft: DraftRunner,
        proposer,
        verify: TargetPass,
        tail: GraphTail | NoTail,
        choice: TargetChoice,
        commit: ChainCommit | TreeCommit | StateCommit,
        inject: ContextInjector,
        buffers: RoundBuffers,
        mask_token_id: int,
        sync_choice,
        timer,
    ):
        self._target_runner, self._draft, self._propose = target_runner, draft, proposer
        self._verify, self._tail, self._choose = verify, tail, choice
        self._commit, self._inject = commit, inject
        self._buffers, self._mask_token_id = buffers, mask_token_id
        self._sync_choice, self._timer = sync_choice, timer
        device_type = torch.device(target_runner.device).type
        self._prepare_block = prepare_block.choose(device_type)
        self._accept = accept.choose(device_type)

    def __call__(self, batch, state: DraftState, on_publish) -> GenerationBatchResult:
        """One round for ``batch`` (decoding); ``on_publish`` takes the new prefix lengths [bs]."""
        prefix_lens, bs, stage = batch.seq_lens, batch.seq_lens.numel(), self._timer.stage
        block, accepted = self._buffers.next(bs)
        width = self._propose.verify_width
        with stage("prepare"):
            self._prepare(batch, state, prefix_lens, block)
            plan = self._plan(batch, state, prefix_lens, block.slots)
            host_lens = self._host_lens(batch, state, width)
        with stage("draft"):
            drafted = self._draft(batch, block, prefix_lens, plan, host_lens)
        with stage("propose"):
            proposal = self._propose(batch, block, drafted)
        with stage("verify"):
            verified = self._verify(batch, proposal, block.slots, plan, host_lens)
        with stage("accept"):
            done = self._tail.take(verified.result, batch.sampling_info, accepted)
            if not done:
                logits = verified.output.next_token_logits
                chosen = self._choose(logits, proposal.positions.view(-1), batch.sampling_info, width)
                self._sync_choice(chosen)
                self._accept(proposal.tokens, chosen, proposal.parents, prefix_lens, accepted)
            if on_publish is not None:
                on_publish(accepted.new_prefix_lens)
        with stage("commit"):
            slots = plan.write_ids(self._draft.kv_index_translator).view(bs, width)
            features = self._commit(batch, proposal, accepted, slots, verified.features)
        with stage("inject"):
            if not done:
                self._inject(features)
        self._timer.finish_round(bs)
        return self._result(verified, accepted)

    def _prepare(self, batch, state: DraftState, prefix_lens: torch.Tensor, block: BlockInputs) -> None:
        rows = self._target_runner.req_to_token_pool.req_to_token
        self._prepare_block(state.bonus_tokens, prefix_lens, batch.req_pool_indices, rows, self._mask_token_id, block)

    def _plan(self, batch, state: DraftState, prefix_lens: torch.Tensor, slots: torch.Tensor):
        """The round's KV slots, planned once for draft, verify and injection."""
        return self._target_runner.kv_index_translator.plan(
            req_pool_indices=batch.req_pool_indices,
            seq_lens=prefix_lens,
            seq_lens_cpu=batch.seq_lens_cpu if batch.seq_lens_cpu is not None else state.nxt_kv_lens_cpu,
            write_virtual=slots,
            read_extent=self._propose.verify_width,
        )

    @staticmethod
    def _host_lens(batch, state: DraftState, width: int) -> torch.Tensor:
        """Host bound of prefix + window; the reserved lengths where no backend reads exact ones."""
        return state.nxt_kv_lens_cpu if batch.seq_lens_cpu is None else batch.seq_lens_cpu + width

    def _result(self, verified, accepted: Acceptance) -> GenerationBatchResult:
        return GenerationBatchResult(
            logits_output=verified.output,
            next_token_ids=accepted.emitted.view(-1),
            accept_lens=accepted.commit_lens,
            new_seq_lens=accepted.new_prefix_lens,
            next_draft_input=DraftState.after(accepted.bonus, accepted.new_prefix_lens),
            can_run_cuda_graph=verified.result.can_run_cuda_graph,
            speculative_num_draft_tokens=self._propose.verify_width,
            speculative_output_stride=accepted.emitted.shape[1],
            routed_experts_output=verified.result.routed_experts_output,
            indexer_topk_output=verified.result.indexer_topk_output,
        )
