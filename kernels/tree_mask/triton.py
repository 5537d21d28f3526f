"""The flat mask as one launch: a program per request, node and stretch of columns."""

import torch
import triton
import triton.language as tl

# Programs that share a node's context: how long it is, the host does not know.
PARTS = 16


@triton.jit
def _flat_mask_kernel(
    visibility,  # [bs, W, W] int8
    prefix_lens,  # [bs] int64
    out,  # [>= sum(W * (prefix + W))] int8
    width,
    CONTEXT: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK: tl.constexpr,
):
    request = tl.program_id(0).to(tl.int64)
    node = tl.program_id(1)
    part = tl.program_id(2)
    earlier = tl.arange(0, BLOCK_B)
    contexts = tl.sum(tl.load(prefix_lens + earlier, mask=earlier < request, other=0), 0)
    prefix = tl.load(prefix_lens + request)
    row = out + (contexts + request * width) * width + node * (prefix + width)
    if part == 0:
        column = tl.arange(0, BLOCK_W)
        seen = tl.load(visibility + (request * width + node) * width + column, mask=column < width, other=0)
        tl.store(row + prefix + column, seen, mask=column < width)
    if CONTEXT:
        for first in range(part * BLOCK, prefix, tl.num_programs(2) * BLOCK):
            column = first + tl.arange(0, BLOCK)
            tl.store(row + column, tl.full((BLOCK,), 1, tl.int8), mask=column < prefix)


def flat_mask(visibility: torch.Tensor, prefix_lens: torch.Tensor, out: torch.Tensor, context: bool) -> None:
    """As ``naive.flat_mask``, in one launch."""
    bs, width, _ = visibility.shape
    _flat_mask_kernel[(bs, width, PARTS if context else 1)](
        visibility.view(torch.int8),
        prefix_lens,
        out.view(torch.int8),
        width,
        CONTEXT=context,
        BLOCK_B=triton.next_power_of_2(bs),
        BLOCK_W=triton.next_power_of_2(width),
        BLOCK=1024,
    )
