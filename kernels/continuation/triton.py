"""The shift as one launch: a program per request."""

import torch
import triton
import triton.language as tl

from sglang_dflash.types import Continuation


@triton.jit
def _continuation_kernel(
    packed,  # [bs, 1 + 2 * width] int64
    anchors,  # [bs], anchor_stride apart
    positions,  # [bs], position_stride apart
    tokens,  # [bs, count] int64
    log_probs,  # [bs, count] int64, bit patterns of float64
    anchor_stride,
    position_stride,
    width,
    count,
    NOTHING: tl.constexpr,  # bit pattern of -inf
    BLOCK: tl.constexpr,
):
    request = tl.program_id(0).to(tl.int64)
    own = packed + request * (1 + 2 * width)
    behind = tl.load(positions + request * position_stride) + 1 - tl.load(own)
    known = (behind > 0) & (behind <= width)
    last = tl.load(own + behind, mask=known, other=0)
    holds = (behind == 0) | (known & (last == tl.load(anchors + request * anchor_stride)))
    column = tl.arange(0, BLOCK)
    place = behind + column
    there = holds & (place >= 0) & (place < width) & (column < count)
    out = request * count + column
    tl.store(tokens + out, tl.load(own + 1 + place, mask=there, other=0), mask=column < count)
    tl.store(log_probs + out, tl.load(own + 1 + width + place, mask=there, other=NOTHING), mask=column < count)


_NOTHING = torch.tensor(-torch.inf, dtype=torch.float64).view(torch.int64).item()


def continuation(packed: torch.Tensor, anchors: torch.Tensor, positions: torch.Tensor, count: int) -> Continuation:
    """As ``naive.continuation``, in one launch."""
    bs, columns = packed.shape
    tokens, log_probs = torch.empty(2, bs, count, dtype=torch.int64, device=packed.device)
    _continuation_kernel[(bs,)](
        packed,
        anchors,
        positions,
        tokens,
        log_probs,
        anchors.stride(0),
        positions.stride(0),
        (columns - 1) // 2,
        count,
        NOTHING=_NOTHING,
        BLOCK=triton.next_power_of_2(count),
        num_warps=1,
    )
    return Continuation(tokens, log_probs.view(torch.float64))
