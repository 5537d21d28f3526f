"""Torch twin of the convolution along a block; what the CPU serves with."""

import torch


def convolve_blocks(hidden: torch.Tensor, dynamic: torch.Tensor, base: torch.Tensor, block_size: int) -> torch.Tensor:
    """hidden [T, width] convolved, causal inside each block of ``block_size`` rows, blind across blocks.

    base [taps, width]: the learned kernel of every channel. dynamic [T, taps * groups], rows any distance apart: what
    each token adds to it, per group of neighbouring channels.
    """
    taps, width = base.shape
    groups = dynamic.shape[1] // taps
    x = hidden.view(-1, block_size, groups, width // groups)
    kernel = base.view(taps, groups, -1) + dynamic.view(-1, block_size, taps, groups, 1)
    out = kernel[:, :, 0] * x
    for tap in range(1, min(taps, block_size)):
        out[:, tap:] += kernel[:, tap:, tap] * x[:, :-tap]
    return out.view_as(hidden)
