"""The compaction of all buffers as one launch: a program per request, buffer and span of a row."""

import torch
import triton
import triton.language as tl

from sglang_dflash.kernels.compact_kv.table import KVTable

SPAN_WORDS = 256


@triton.jit
def _compact_kv_kernel(
    path,  # [bs, D] int64
    commit_lens,  # [bs] int32
    window_slots,  # [bs, W] int64
    pointers,  # [buffers] int64
    row_words,  # [buffers] int32
    slot_words,  # [buffers] int64
    path_len,
    width,
    BLOCK_D: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    request = tl.program_id(0).to(tl.int64)
    buffer = tl.program_id(1)
    words = tl.load(row_words + buffer)
    stride = tl.load(slot_words + buffer)
    base = tl.load(pointers + buffer).to(tl.pointer_type(tl.int32))
    step = tl.arange(0, BLOCK_D)
    node = tl.load(path + request * path_len + step, mask=step < path_len, other=-1)
    moved = (step < tl.load(commit_lens + request)) & (node != step)
    source = tl.load(window_slots + request * width + node, mask=moved, other=0)
    destination = tl.load(window_slots + request * width + step, mask=moved, other=0)
    word = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = moved[:, None] & (word < words)[None, :]
    rows = tl.load(base + source[:, None] * stride + word[None, :], mask=inside, other=0)
    # A source row of one node may be the destination of another: all reads come first.
    tl.debug_barrier()
    tl.store(base + destination[:, None] * stride + word[None, :], rows, mask=inside)


def compact_kv(path: torch.Tensor, commit_lens: torch.Tensor, window_slots: torch.Tensor, table: KVTable) -> None:
    """As ``naive.compact_kv``, in one launch and without a host read."""
    bs, path_len = path.shape
    grid = (bs, len(table.buffers), triton.cdiv(table.max_row_words, SPAN_WORDS))
    _compact_kv_kernel[grid](
        path,
        commit_lens,
        window_slots,
        table.pointers,
        table.row_words,
        table.slot_words,
        path_len,
        window_slots.shape[1],
        BLOCK_D=triton.next_power_of_2(path_len),
        BLOCK_C=SPAN_WORDS,
    )
