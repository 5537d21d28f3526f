"""Which context slots the draft reads: the target's row table, or a window of it. Chosen once at start."""

from typing import NamedTuple

import torch


class Reads(NamedTuple):
    """What the draft's forward pass reads for a batch."""

    prefix_lens: torch.Tensor  # [bs] int, context tokens visible to the block
    plan: object  # KV location plan bound to the draft's forward batch
    host_lens: torch.Tensor  # [bs] int32 on the host, upper bound of prefix + block
    host_sum: int


class WholeContext:
    """The draft shares the target's row table and sees the whole context."""

    def reads(self, plan, req_pool_indices, prefix_lens, slots, host_lens) -> Reads:
        """``host_lens`` [bs] int32: upper bound of prefix + block."""
        return Reads(prefix_lens, plan, host_lens, sum(host_lens.tolist()))


class WindowedContext:
    """The draft reads a row table of its own that holds the last ``window`` context slots and the block.

    Slots stay the target's, so prefix hits bring the draft's context along; only the view is narrow.
    With pages the window is widened to the left to a page boundary: paged kernels derive pages from columns.
    """

    def __init__(self, runner, target_rows: torch.Tensor, block_size: int, window: int, page_size: int):
        self._runner, self._target_rows = runner, target_rows
        self._block_size, self._window, self._page_size = block_size, window, page_size
        self._widest = window + (page_size - 1 if page_size > 1 else 0)
        self._columns = torch.arange(self._widest + block_size, device=target_rows.device)

    def reads(self, plan, req_pool_indices, prefix_lens, slots, host_lens) -> Reads:
        start = (prefix_lens - self._window).clamp_(min=0)
        if self._page_size > 1:
            start = start - start % self._page_size
        visible = prefix_lens - start
        # One gather covers window and block: the block's slots follow the prefix in the target's row.
        columns = (start[:, None] + self._columns).clamp_(max=self._target_rows.shape[1] - 1)
        own = self._runner.req_to_token_pool.req_to_token
        rows = req_pool_indices[:, None]
        own[rows, self._columns] = self._target_rows[rows, columns]
        host_lens = host_lens.clamp(max=self._widest + self._block_size)
        narrow = plan.reads_from(
            self._runner.kv_index_translator,
            seq_lens=visible,
            seq_lens_cpu=host_lens,
            read_extent=self._block_size,
        )
        return Reads(visible, narrow, host_lens, sum(host_lens.tolist()))
