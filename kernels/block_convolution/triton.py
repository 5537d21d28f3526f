"""The convolution along a block as one launch: a program per token and stretch of channels."""

import torch
import triton
import triton.language as tl

BLOCK = 512


@triton.jit
def _convolve_blocks_kernel(
    hidden,  # [T, width]
    dynamic,  # [T, TAPS * groups], rows dynamic_stride apart
    base,  # [TAPS, width]
    out,  # [T, width]
    dynamic_stride,
    width,
    groups,
    block_size,
    TAPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < width
    group = channel // (width // groups)
    total = tl.zeros((BLOCK,), tl.float32)
    for tap in tl.static_range(TAPS):
        seen = inside & (token % block_size >= tap)
        x = tl.load(hidden + (token - tap) * width + channel, mask=seen, other=0.0).to(tl.float32)
        learned = tl.load(base + tap * width + channel, mask=seen, other=0.0).to(tl.float32)
        added = tl.load(dynamic + token * dynamic_stride + tap * groups + group, mask=seen, other=0.0).to(tl.float32)
        total += (learned + added) * x
    tl.store(out + token * width + channel, total.to(out.dtype.element_ty), mask=inside)


def convolve_blocks(hidden: torch.Tensor, dynamic: torch.Tensor, base: torch.Tensor, block_size: int) -> torch.Tensor:
    """As ``naive.convolve_blocks``, in one launch; summed in fp32 and rounded once."""
    (tokens, width), taps = hidden.shape, base.shape[0]
    hidden, out = hidden.contiguous(), torch.empty((tokens, width), dtype=hidden.dtype, device=hidden.device)
    _convolve_blocks_kernel[(tokens, triton.cdiv(width, BLOCK))](
        hidden,
        dynamic,
        base,
        out,
        dynamic.stride(0),
        width,
        dynamic.shape[1] // taps,
        block_size,
        TAPS=taps,
        BLOCK=BLOCK,
    )
    return out
