"""torch's own projections: what a GPU serves with, and the twin of oneDNN's."""

import torch
from torch.nn.functional import linear as project

__all__ = ["add", "project"]


def add(
    residual: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """``residual + x @ weight.T + bias``. residual: [n, out]; x: [n, in]; weight: [out, in]; bias: [out]."""
    return torch.addmm(residual if bias is None else residual + bias, x, weight.t())
