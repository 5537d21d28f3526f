"""What the recurrences have in common: decay along the paths of a window, and heads that share a group's entry."""

import torch


def decay_along_paths(decay: torch.Tensor, ancestors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log decay [n, heads, W] of tokens, ancestors [n or 1, 1, W, W] bool (j is token i or before it on its path).

    -> its sums along each path [n, heads, W], and the decay from token j to i [n, heads, W, W], 0 off the path.
    """
    total = torch.matmul(decay.unsqueeze(2), ancestors.transpose(2, 3).float()).squeeze(2)
    # Off the path the difference may be positive: it must not reach exp.
    between = (total.unsqueeze(3) - total.unsqueeze(2)).masked_fill_(~ancestors, -torch.inf).exp_()
    return total, between


def per_head(x: torch.Tensor, heads: int) -> torch.Tensor:
    """[n, groups, ...] -> [n, heads, ...]: a group's entry for each of its heads."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], 1)
