"""Which context slots the draft reads: the target's row table, or a window of it. Chosen once at start."""

from typing import Any, NamedTuple

import torch

from sglang_dflash.kernels import window_rows


class Reads(NamedTuple):
    """What the draft's forward pass reads for a batch."""

    prefix_lens: torch.Tensor  # [bs] int, context tokens visible to the block
    plan: Any  # KV location plan bound to the draft's forward batch
    host_lens: torch.Tensor  # [bs] int32 on the host, upper bound of prefix + block
    host_sum: int


class WholeContext:
    """The draft shares the target's row table and sees the whole context."""

    def reads(self, plan, req_pool_indices, prefix_lens, slots, host_lens) -> Reads:
        """``host_lens`` [bs] int32: upper bound of prefix + block."""
        return Reads(prefix_lens, plan, host_lens, sum(host_lens.tolist()))

    def warm_up(self) -> None:
        """Nothing to compile."""


class WindowedContext:
    """The draft reads a row table of its own that holds the last ``window`` context slots and the block.

    Slots stay the target's, so prefix hits bring the draft's context along; only the view is narrow.
    With pages the window is widened to the left to a page boundary: paged kernels derive pages from columns.
    """

    def __init__(self, runner, target_rows: torch.Tensor, block_size: int, window: int, page_size: int):
        self._runner, self._target_rows = runner, target_rows
        self._window = window_rows.Window(window, page_size, block_size)
        self._write = window_rows.choose(target_rows.device.type)

    def reads(self, plan, req_pool_indices, prefix_lens, slots, host_lens) -> Reads:
        visible, own = torch.empty_like(prefix_lens), self._runner.req_to_token_pool.req_to_token
        self._write(self._target_rows, req_pool_indices, prefix_lens, self._window, own, visible)
        host_lens = host_lens.clamp(max=min(self._window.widest, own.shape[1]))
        narrow = plan.reads_from(
            self._runner.kv_index_translator,
            seq_lens=visible,
            seq_lens_cpu=host_lens,
            read_extent=self._window.block,
        )
        return Reads(visible, narrow, host_lens, sum(host_lens.tolist()))

    def warm_up(self) -> None:
        """Compile the kernel at start, on the row of no request."""
        zero = self._target_rows.new_zeros(1, dtype=torch.int64)
        own = self._runner.req_to_token_pool.req_to_token
        self._write(self._target_rows, zero, zero, self._window, own, torch.empty_like(zero))
