"""Grouped dynamic convolution along a block (DFlash 2).

Positions of a block are drafted at once; the convolution lets each see the ones before it without another pass.
Its coefficients are a learned kernel per channel plus a part per group of channels that is projected from the input.
"""

import torch
import torch.nn.functional as F
from torch import nn

from sglang_dflash.checkpoints.config import Convolution


class Projection(nn.Module):
    """A matrix in full precision, [rows, columns]; quantised checkpoints leave these small ones alone."""

    def __init__(self, rows: int, columns: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, columns), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight)


class BlockConvolution(nn.Module):
    """Causal inside a block, blind across blocks: nothing but zeros lies before an anchor."""

    def __init__(self, hidden_size: int, block_size: int, sizes: Convolution):
        super().__init__()
        self.block_size = block_size
        self._taps, self._group_size = sizes.kernel_size, sizes.group_size
        self._groups = hidden_size // sizes.group_size
        # Side (input, output), tap, channel.
        self.base_kernel = nn.Parameter(torch.zeros(2, self._taps, hidden_size), requires_grad=False)
        self.kernel_projection = Projection(2 * self._taps * self._groups, hidden_size)

    def enter(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """hidden [tokens, hidden] -> the same convolved, and the kernel [tokens, taps * groups] for ``leave``."""
        inner, outer = self.kernel_projection(hidden).chunk(2, -1)
        return self._convolve(hidden, inner, 0), outer

    def leave(self, hidden: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        """The part's output [tokens, hidden], convolved with the kernel that its input gave."""
        return self._convolve(hidden, kernel, 1)

    def _convolve(self, hidden: torch.Tensor, dynamic: torch.Tensor, side: int) -> torch.Tensor:
        groups, size = self._groups, self._group_size
        x = hidden.view(-1, self.block_size, groups, size)
        base = self.base_kernel[side].view(self._taps, groups, size)
        kernel = base + dynamic.view(-1, self.block_size, self._taps, groups, 1)
        out = kernel[:, :, 0] * x
        for tap in range(1, min(self._taps, self.block_size)):
            out[:, tap:] += kernel[:, tap:, tap] * x[:, :-tap]
        return out.view_as(hidden)
