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
    slots,  # [bs, S] int64
    row_stride,
    mask_token_id,
    block_size,
    window,
    BLOCK: tl.constexpr,
):
    request = tl.program_id(0).to(tl.int64)
    step = tl.arange(0, BLOCK)
    inside = step < window
    position = tl.load(prefix_lens + request) + step
    row = tl.load(req_pool_indices + request) * row_stride
    slot = tl.load(req_to_token + row + position, mask=inside, other=0)
    token = tl.where(step == 0, tl.load(bonus_tokens + request), mask_token_id)
    tl.store(slots + request * window + step, slot.to(tl.int64), mask=inside)
    inside = step < block_size
    out = request * block_size + step
    tl.store(ids + out, token, mask=inside)
    tl.store(positions + out, position, mask=inside)


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
    block_size, window = out.ids.numel() // bs, out.slots.numel() // bs
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
        window,
        BLOCK=triton.next_power_of_2(window),
        num_warps=1,
    )
