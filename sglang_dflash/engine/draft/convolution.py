"""Grouped dynamic convolution along a block (DFlash 2).

Positions of a block are drafted at once; the convolution lets each see the ones before it without another pass.
Its coefficients are a learned kernel per channel plus a part per group of channels that is projected from the input.
"""

import torch
import torch.nn.functional as F
from torch import nn

from sglang_dflash.checkpoints.config import Convolution
from sglang_dflash.kernels import block_convolution


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
        # Side (input, output), tap, channel.
        taps, groups = sizes.kernel_size, hidden_size // sizes.group_size
        self.base_kernel = nn.Parameter(torch.zeros(2, taps, hidden_size), requires_grad=False)
        self.kernel_projection = Projection(2 * taps * groups, hidden_size)
        self.bind(block_size)

    def bind(self, block_size: int) -> None:
        """Take the tokens in a block of this run, and the device."""
        self._block_size = block_size
        self._convolve = block_convolution.choose(self.base_kernel.device.type)

    def enter(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """hidden [tokens, hidden] -> the same convolved, and the kernel [tokens, taps * groups] for ``leave``."""
        inner, outer = self.kernel_projection(hidden).chunk(2, -1)
        return self._convolve(hidden, inner, self.base_kernel[0], self._block_size), outer

    def leave(self, hidden: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        """The part's output [tokens, hidden], convolved with the kernel that its input gave."""
        return self._convolve(hidden, kernel, self.base_kernel[1], self._block_size)
