"""Torch twin of the block preparation; what the CPU serves with."""

import functools

import torch

from sglang_dflash.types import BlockInputs


@functools.cache
def block_offsets(block_size: int, device: torch.device) -> torch.Tensor:
    """``0 .. block_size - 1`` as int64 [block_size], made once per size and device."""
    return torch.arange(block_size, dtype=torch.int64, device=device)


def prepare_block(
    bonus_tokens: torch.Tensor,
    prefix_lens: torch.Tensor,
    req_pool_indices: torch.Tensor,
    req_to_token: torch.Tensor,
    mask_token_id: int,
    out: BlockInputs,
) -> None:
    """Fill ``out`` for one draft pass (DFlash, arXiv 2602.06036, section 3: anchor and masks).

    bonus_tokens [bs] int64: anchors, the last committed tokens. prefix_lens [bs] int64: their
    positions. req_pool_indices [bs] int64: rows of req_to_token [rows, columns] int32. The block
    size is ``out.ids.numel() / bs``, the window's ``out.slots.numel() / bs``, not smaller; columns
    prefix .. prefix + S - 1 must exist in the table.
    """
    bs = bonus_tokens.numel()
    block_size, window = out.ids.numel() // bs, out.slots.numel() // bs
    ids = out.ids.view(bs, block_size)
    ids.fill_(mask_token_id)
    ids[:, 0] = bonus_tokens
    positions = out.positions.view(bs, block_size)
    torch.add(prefix_lens.unsqueeze(1), block_offsets(block_size, out.ids.device), out=positions)
    columns = positions
    if window > block_size:
        columns = prefix_lens.unsqueeze(1) + block_offsets(window, out.ids.device)
    out.slots.view(bs, window).copy_(req_to_token[req_pool_indices.unsqueeze(1), columns])
