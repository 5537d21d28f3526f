"""The flat mask as one launch: a program per request and node."""

import torch
import triton
import triton.language as tl


@triton.jit
def _flat_mask_kernel(
    visibility,  # [bs, W, W] int8
    prefix_lens,  # [bs] int64
    out,  # [>= sum(W * (prefix + W))] int8
    width,
    BLOCK_B: tl.constexpr,
    BLOCK: tl.constexpr,
):
    request = tl.program_id(0).to(tl.int64)
    node = tl.program_id(1)
    earlier = tl.arange(0, BLOCK_B)
    contexts = tl.sum(tl.load(prefix_lens + earlier, mask=earlier < request, other=0), 0)
    prefix = tl.load(prefix_lens + request)
    columns = prefix + width
    row = out + (contexts + request * width) * width + node * columns
    seen = visibility + (request * width + node) * width
    for first in range(0, columns, BLOCK):
        column = first + tl.arange(0, BLOCK)
        drafted = (column >= prefix) & (column < columns)
        value = tl.load(seen + column - prefix, mask=drafted, other=1)
        tl.store(row + column, value, mask=column < columns)


def flat_mask(visibility: torch.Tensor, prefix_lens: torch.Tensor, out: torch.Tensor) -> None:
    """As ``naive.flat_mask``, in one launch."""
    bs, width, _ = visibility.shape
    _flat_mask_kernel[(bs, width)](
        visibility.view(torch.int8),
        prefix_lens,
        out.view(torch.int8),
        width,
        BLOCK_B=triton.next_power_of_2(bs),
        BLOCK=1024,
    )
