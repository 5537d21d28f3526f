"""One pass of the draft model over the block, in SGLang's model runner (and its graphs, where captured)."""

import torch

from sglang_dflash.engine.draft.candidates import Packing
from sglang_dflash.engine.draft.view import WholeContext, WindowedContext
from sglang_dflash.host.worker_api import (
    CaptureHiddenMode,
    DFlashVerifyInput,
    ForwardBatch,
    ForwardMode,
    SpeculativeAlgorithm,
    draft_tp_context,
    enable_num_token_non_padded,
)
from sglang_dflash.types import BlockInputs, Drafted


class DraftRunner:
    """block ids -> what the draft says of every position; a bidirectional block is a verify pass to SGLang."""

    def __init__(
        self,
        model_runner,
        view: WholeContext | WindowedContext,
        block_size: int,
        columns: slice | None,
        layout,
        packing: Packing | None,
    ):
        """columns: those of the round's window of slots that the block takes, None for all.

        packing: of what the model hands on, None where it is tokens only.
        """
        self._model_runner, self._view, self._packing = model_runner, view, packing
        self._columns, self._layout = columns, layout
        # Expert-parallel runners ask every batch for its count of real tokens, as a device scalar.
        self._counts_tokens = enable_num_token_non_padded()
        empty = torch.empty(0, dtype=torch.int64, device=model_runner.device)
        self._spec_info = DFlashVerifyInput(
            draft_token=empty,
            positions=empty,
            draft_token_num=block_size,
            capture_hidden_mode=CaptureHiddenMode.NULL,
        )

    def __call__(self, batch, block: BlockInputs, plan, host_lens: torch.Tensor) -> Drafted:
        """plan: the round's KV slots; host_lens [bs] on the host, upper bound of prefix + block."""
        reads = self._view.reads(plan, batch.req_pool_indices, batch.seq_lens, block.slots, host_lens)
        num_tokens, bs = block.ids.numel(), batch.seq_lens.numel()
        forward_batch = ForwardBatch(
            forward_mode=ForwardMode.TARGET_VERIFY,
            batch_size=bs,
            input_ids=block.ids,
            req_pool_indices=batch.req_pool_indices,
            seq_lens=reads.prefix_lens,
            out_cache_loc=None,
            seq_lens_sum=reads.host_sum,
            seq_lens_cpu=reads.host_lens,
            positions=block.positions,
            spec_algorithm=SpeculativeAlgorithm.DFLASH,
            spec_info=self._spec_info,
            capture_hidden_mode=CaptureHiddenMode.NULL,
            global_num_token_non_padded_cpu=num_tokens,
            num_token_non_padded=(
                torch.full((), num_tokens, dtype=torch.int32, device=block.ids.device) if self._counts_tokens else None
            ),
            can_run_decode_cuda_graph=batch.can_run_decode_cuda_graph,
        )
        reads.plan.bind(forward_batch, self._model_runner.kv_index_translator, cols=self._columns)
        with torch.inference_mode(), draft_tp_context(self._layout):
            out = self._model_runner.forward(forward_batch)
        # They travel as hidden states, which graph replay hands on.
        handed_on, positions = out.logits_output.hidden_states, block.positions.view(bs, -1)
        if self._packing is None:
            return Drafted(handed_on.view(bs, -1), positions)
        return self._packing.unpack(handed_on, positions)

    def warm_up(self) -> None:
        """Compile what stands before the pass."""
        self._view.warm_up()


class AnchorOnly:
    """No draft pass: the anchor is all there is to verify."""

    def __call__(self, batch, block: BlockInputs, plan, host_lens: torch.Tensor) -> Drafted:
        """As ``DraftRunner``, for blocks of one token."""
        return Drafted(block.ids.view(-1, 1), block.positions.view(-1, 1))

    def warm_up(self) -> None:
        """Nothing to compile."""
