"""Batched greedy decoding with the lean target, one cache row per prompt."""

from __future__ import annotations

import torch
from torch import Tensor

from sglang_dflash.train.model import TinyQwen3


class RowCache:
    """Key/value rows of one layer, each row at its own length."""

    def __init__(self, rows: int, kv_heads: int, length: int, head_dim: int) -> None:
        self.k = torch.zeros(rows, kv_heads, length, head_dim)
        self.v = torch.zeros(rows, kv_heads, length, head_dim)
        self.at: Tensor | None = None  # [rows] where the next token goes; None while prefilling

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k, v [rows, kv_heads, s, head_dim] and return everything stored."""
        if self.at is None:
            self.k[:, :, : k.shape[2]] = k
            self.v[:, :, : v.shape[2]] = v
            return k, v
        rows = torch.arange(k.shape[0])
        self.k[rows, :, self.at] = k[:, :, 0]
        self.v[rows, :, self.at] = v[:, :, 0]
        return self.k, self.v

    def keep(self, rows: Tensor) -> None:
        """Drop finished rows."""
        self.k, self.v = self.k[rows], self.v[rows]


@torch.no_grad()
def greedy(model: TinyQwen3, prompts: list[list[int]], end: int, max_new: int) -> list[list[int]]:
    """Greedy continuation of every prompt, the end token included where it is reached."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), 64):
        some = order[start : start + 64]
        for i, tokens in zip(
            some, _greedy_batch(model, [prompts[i] for i in some], end, max_new), strict=True
        ):
            out[i] = tokens
    return out


def _greedy_batch(model: TinyQwen3, prompts: list[list[int]], end: int, max_new: int) -> list[list[int]]:
    shape = model.shape
    lengths = torch.tensor([len(p) for p in prompts])
    width = int(lengths.max())
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    for r, p in enumerate(prompts):
        ids[r, : len(p)] = torch.tensor(p)
    total = width + max_new
    caches = [
        RowCache(len(prompts), shape.num_key_value_heads, total, shape.head_dim)
        for _ in range(shape.num_hidden_layers)
    ]
    bias = torch.full((width, width), float("-inf")).triu(1)[None, None]
    hidden = model(ids, torch.arange(width).expand(len(prompts), -1), bias, caches)
    token = model.logits(hidden[torch.arange(len(prompts)), lengths - 1]).argmax(-1)
    out: list[list[int]] = [[] for _ in prompts]
    alive = torch.arange(len(prompts))
    for _ in range(max_new):
        for r, t in zip(alive.tolist(), token.tolist(), strict=True):
            out[r].append(t)
        going = token != end
        if not going.all():
            rows = going.nonzero()[:, 0]
            alive, token, lengths = alive[rows], token[rows], lengths[rows]
            for cache in caches:
                cache.keep(rows)
        if not len(alive):
            break
        for cache in caches:
            cache.at = lengths
        seen = torch.arange(total)[None] <= lengths[:, None]
        bias = torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))[:, None, None]
        hidden = model(token[:, None], lengths[:, None], bias, caches)
        token = model.logits(hidden[:, 0]).argmax(-1)
        lengths = lengths + 1
    return out
