"""The KV buffers of all layers as one table, made once after the pool exists."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from sglang_dflash.errors import DFlashError

WORD_BYTES = 4


class KVTable(NamedTuple):
    """Buffers indexed by slot along their first dimension, of any stride; rows are contiguous."""

    buffers: tuple[torch.Tensor, ...]  # keys and values of every layer, each [slots, ...]
    pointers: torch.Tensor  # [buffers] int64, base addresses on the device
    row_words: torch.Tensor  # [buffers] int32, row length in 4-byte words
    slot_words: torch.Tensor  # [buffers] int64, distance of neighbouring slots in 4-byte words
    max_row_words: int


def make_kv_table(buffers: Sequence[torch.Tensor]) -> KVTable:
    """Table over ``buffers``; DFlashError where a buffer cannot be moved row by row."""
    rows, strides = [], []
    for index, buffer in enumerate(buffers):
        row_bytes = buffer[0].numel() * buffer.element_size()
        stride_bytes = buffer.stride(0) * buffer.element_size()
        if not buffer[0].is_contiguous() or row_bytes % WORD_BYTES or stride_bytes % WORD_BYTES:
            raise DFlashError(
                f"KV buffer {index}",
                f"shape {tuple(buffer.shape)}, strides {buffer.stride()}, {buffer.dtype}",
                f"need contiguous rows of a multiple of {WORD_BYTES} bytes",
            )
        rows.append(row_bytes // WORD_BYTES)
        strides.append(stride_bytes // WORD_BYTES)
    device = buffers[0].device
    return KVTable(
        buffers=tuple(buffers),
        pointers=torch.tensor([b.data_ptr() for b in buffers], dtype=torch.int64, device=device),
        row_words=torch.tensor(rows, dtype=torch.int32, device=device),
        slot_words=torch.tensor(strides, dtype=torch.int64, device=device),
        max_row_words=max(rows),
    )
