"""Grouped dynamic convolution along a block (DFlash 2)."""

from sglang_dflash.kernels.dispatch import by_device

choose = by_device(__name__, "convolve_blocks")
