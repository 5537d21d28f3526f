"""Block preparation as one launch: a program per request."""

import torch
import triton
import triton.language as tl

from sglang_dflash.types import BlockInputs


@triton.jit
def _prepare_block_kernel(
    bonus_tokens,  # [bs] int64
    prefix_lens,  # [bs] int64
    req_pool_indices,  # [bs] int64
    req_to_token,  # [rows, columns] int32
    ids,  # [bs, B] int64
    positions,  # [bs, B] int64
    slots,  # [bs, B] int64
    row_stride,
    mask_token_id,
    block_size,
    BLOCK: tl.constexpr,
):
    request = tl.program_id(0).to(tl.int64)
    step = tl.arange(0, BLOCK)
    inside = step < block_size
    position = tl.load(prefix_lens + request) + step
    row = tl.load(req_pool_indices + request) * row_stride
    slot = tl.load(req_to_token + row + position, mask=inside, other=0)
    token = tl.where(step == 0, tl.load(bonus_tokens + request), mask_token_id)
    out = request * block_size + step
    tl.store(ids + out, token, mask=inside)
    tl.store(positions + out, position, mask=inside)
    tl.store(slots + out, slot.to(tl.int64), mask=inside)


def prepare_block(
    bonus_tokens: torch.Tensor,
    prefix_lens: torch.Tensor,
    req_pool_indices: torch.Tensor,
    req_to_token: torch.Tensor,
    mask_token_id: int,
    out: BlockInputs,
) -> None:
    """As ``naive.prepare_block``, in one launch."""
    bs = bonus_tokens.numel()
    block_size = out.ids.numel() // bs
    _prepare_block_kernel[(bs,)](
        bonus_tokens,
        prefix_lens,
        req_pool_indices,
        req_to_token,
        out.ids,
        out.positions,
        out.slots,
        req_to_token.stride(0),
        mask_token_id,
        block_size,
        BLOCK=triton.next_power_of_2(block_size),
        num_warps=1,
    )
