"""Torch twin of the compaction; what the CPU serves with."""

import torch

from sglang_dflash.kernels.compact_kv.table import KVTable
from sglang_dflash.kernels.prepare_block.naive import block_offsets


def compact_kv(path: torch.Tensor, commit_lens: torch.Tensor, window_slots: torch.Tensor, table: KVTable) -> None:
    """Copy, in every buffer, the row of the d-th accepted node to the d-th slot of its window.

    path [bs, D] int64 and commit_lens [bs] int32 as in ``Acceptance``; window_slots [bs, W] int64,
    the KV slots that the verify pass wrote, node by node. Since a node's index is at least its
    depth, a chain moves nothing. Reads the number of rows to move on the host.
    """
    bs, path_len = path.shape
    kept = block_offsets(path_len, path.device) < commit_lens.unsqueeze(1)
    moved = kept & (path != block_offsets(path_len, path.device))
    if not moved.any():
        return
    source = window_slots.gather(1, path.clamp(min=0))[moved]
    destination = window_slots[:, :path_len][moved]
    for buffer in table.buffers:
        # index_select is a copy: all rows are read before one is written.
        buffer.index_copy_(0, destination, buffer.index_select(0, source))
