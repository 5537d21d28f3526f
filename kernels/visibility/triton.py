"""The visibility matrix as one launch: a program per request and tile of rows."""

import torch
import triton
import triton.language as tl

ROWS = 16


@triton.jit
def _visibility_kernel(
    parents,  # [bs, W] int32
    out,  # [bs, W, W] int8
    width,
    BLOCK_R: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    request = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
    column = tl.arange(0, BLOCK_W)
    visible = (row[:, None] == column[None, :]).to(tl.int8)
    ancestor = tl.where(row < width, row, -1)
    while tl.max(ancestor, 0) > 0:
        ancestor = tl.load(parents + request * width + ancestor, mask=ancestor > 0, other=-1)
        visible |= (ancestor[:, None] == column[None, :]).to(tl.int8)
    inside = (row < width)[:, None] & (column < width)[None, :]
    tl.store(out + (request * width + row[:, None]) * width + column[None, :], visible, mask=inside)


def visibility_from_parents(parents: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """As ``naive.visibility_from_parents``, in one launch."""
    bs, width = parents.shape
    if out is None:
        out = torch.empty(bs, width, width, dtype=torch.bool, device=parents.device)
    _visibility_kernel[(bs, triton.cdiv(width, ROWS))](
        parents, out.view(torch.int8), width, BLOCK_R=ROWS, BLOCK_W=triton.next_power_of_2(width)
    )
    return out
