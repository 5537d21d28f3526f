"""Muon: momentum whose matrix updates are orthogonalised, batched over equal shapes."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(g: Tensor, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrices, roughly, of g [n, rows, cols], by Newton-Schulz iteration."""
    a, b, c = _QUINTIC
    wide = g.shape[-2] <= g.shape[-1]
    x = g if wide else g.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """For matrices and stacks of them; Nesterov momentum, update scaled by sqrt(max(1, rows / cols))."""

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[tuple(p.shape)].append(p)
            for shape, params in by_shape.items():
                self._step_stack(group, shape, params)

    def _step_stack(self, group: dict, shape: tuple[int, ...], params: list[Tensor]) -> None:
        moving = []
        for p in params:
            state = self.state[p]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(p)
            state["momentum"].lerp_(p.grad, 1 - group["momentum"])
            moving.append(p.grad.lerp(state["momentum"], group["momentum"]))
        update = orthogonalise(torch.stack(moving))
        scale = group["lr"] * max(1.0, shape[-2] / shape[-1]) ** 0.5
        for p, u in zip(params, update, strict=True):
            if group["weight_decay"]:
                p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(u, alpha=-scale)
