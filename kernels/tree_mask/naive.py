"""Torch twin of the flat mask."""

import torch


def flat_mask(visibility: torch.Tensor, prefix_lens: torch.Tensor, out: torch.Tensor, context: bool) -> None:
    """``out`` [>= sum(W * (prefix + W))] bool or uint8: a request, a node after another, ``prefix + W`` columns each.

    A node sees the whole context and the nodes of ``visibility`` [bs, W, W] bool. prefix_lens: [bs] int64.
    What lies behind the last request is left as it is, and so are the context's columns without ``context``: most
    kernels do not read them.
    """
    width = visibility.shape[1]
    first = 0
    for seen, prefix in zip(visibility, prefix_lens.tolist(), strict=True):
        rows = out[first : first + width * (prefix + width)].view(width, prefix + width)
        if context:
            rows[:, :prefix] = True
        rows[:, prefix:] = seen
        first += rows.numel()
