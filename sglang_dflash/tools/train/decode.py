"""Batched greedy decoding with the lean target, one cache row per prompt."""

from __future__ import annotations

import torch
from torch import Tensor

from sglang_dflash.tools.train.model import TinyQwen3


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
def greedy(model: TinyQwen3, prompts: list[list[int]], end: int, max_new: int, rows: int = 64) -> list[list[int]]:
    """Greedy continuation of every prompt, the end token included where it is reached."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out: list[list[int]] = [[] for _ in prompts]
    with model.cos.device:
        for start in range(0, len(order), rows):
            some = order[start : start + rows]
            replies = _greedy_batch(model, [prompts[i] for i in some], end, max_new)
            for i, reply in zip(some, replies, strict=True):
                out[i] = reply
    return out


def _prefill(model: TinyQwen3, prompts: list[list[int]], caches: list[RowCache]) -> tuple[Tensor, Tensor]:
    """Fill the caches; returns the first new token and the prompt length, both [rows]."""
    lengths = torch.tensor([len(p) for p in prompts])
    width = max(map(len, prompts))
    ids = torch.tensor([p + [0] * (width - len(p)) for p in prompts])
    bias = torch.full((width, width), float("-inf")).triu(1)[None, None]
    hidden = model(ids, torch.arange(width).expand(len(prompts), -1), bias, caches)
    return model.logits(hidden[torch.arange(len(prompts)), lengths - 1]).argmax(-1), lengths


def _greedy_batch(model: TinyQwen3, prompts: list[list[int]], end: int, max_new: int) -> list[list[int]]:
    shape, total = model.shape, max(map(len, prompts)) + max_new
    caches = [
        RowCache(len(prompts), shape.num_key_value_heads, total, shape.head_dim) for _ in range(shape.num_hidden_layers)
    ]
    token, lengths = _prefill(model, prompts, caches)
    out: list[list[int]] = [[] for _ in prompts]
    alive = torch.arange(len(prompts))
    for _ in range(max_new):
        for r, t in zip(alive.tolist(), token.tolist(), strict=True):
            out[r].append(t)
        going = (token != end).nonzero()[:, 0]
        if len(going) < len(alive):
            alive, token, lengths = alive[going], token[going], lengths[going]
            for cache in caches:
                cache.keep(going)
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
