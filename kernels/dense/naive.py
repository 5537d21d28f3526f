"""torch's own projections: what a GPU serves with, and the twin of oneDNN's."""

import torch
from torch.nn.functional import linear as project

__all__ = ["add", "project"]


def add(residual: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``residual + x @ weight.T``. residual: [n, out]; x: [n, in]; weight: [out, in]."""
    return torch.addmm(residual, x, weight.t())
