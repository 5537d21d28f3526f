"""The windowed rows as one launch: a program per request and stretch of columns."""

import torch
import triton
import triton.language as tl

from sglang_dflash.kernels.window_rows.naive import Window

BLOCK = 1024


@triton.jit
def _window_rows_kernel(
    rows,  # [n, columns] int32
    requests,  # [bs] int64
    prefix_lens,  # [bs] int64
    out,  # [n, columns] int32
    visible,  # [bs] int64
    row_stride,
    out_stride,
    window,
    page,
    block,
    BLOCK: tl.constexpr,
):
    request = tl.program_id(0).to(tl.int64)
    prefix = tl.load(prefix_lens + request)
    start = tl.maximum(prefix - window, 0)
    start -= start % page
    first = tl.program_id(1) * BLOCK
    if first == 0:
        tl.store(visible + request, prefix - start)
    # Real lengths bound the work: programs behind them are done here.
    column = first + tl.arange(0, BLOCK)
    inside = column < prefix - start + block
    row = tl.load(requests + request)
    slot = tl.load(rows + row * row_stride + start + column, mask=inside, other=0)
    tl.store(out + row * out_stride + column, slot, mask=inside)


def window_rows(
    rows: torch.Tensor,
    requests: torch.Tensor,
    prefix_lens: torch.Tensor,
    window: Window,
    out: torch.Tensor,
    visible: torch.Tensor,
) -> None:
    """As ``naive.window_rows``, in one launch."""
    widest = min(window.widest, out.shape[1])
    _window_rows_kernel[(requests.numel(), triton.cdiv(widest, BLOCK))](
        rows,
        requests,
        prefix_lens,
        out,
        visible,
        rows.stride(0),
        out.stride(0),
        window.size,
        window.page,
        window.block,
        BLOCK=BLOCK,
    )
