"""Torch twin of norm and rotation of queries and keys.

A host serves with SGLang's own operators instead, which its platform has made fast.
"""

from typing import NamedTuple

import torch

from sglang_dflash.kernels.norm_rope.naive import norm_heads, rotate


class HeadNorms(NamedTuple):
    """Sizes and norms of a layer's heads."""

    heads: int  # of queries
    kv_heads: int
    head_dim: int
    queries: torch.Tensor  # [head_dim], weight of the queries' norm
    keys: torch.Tensor  # [head_dim]
    offset: float  # added to both weights
    eps: float


def qk_norm_rope(
    qkv: torch.Tensor, positions: torch.Tensor, norms: HeadNorms, cos_sin: torch.Tensor, interleaved: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys of ``qkv``, normed and rotated: [T, heads * head_dim] and [T, kv_heads * head_dim].

    qkv [T, (heads + 2 * kv_heads) * head_dim]: all query heads, then keys, then values; positions [T] int64;
    cos_sin [max_position, rotary_dim]: cosines, then sines. Computed in fp32 and rounded once.
    """
    rows = qkv.view(qkv.shape[0], 1, -1, norms.head_dim)
    weights = torch.cat((norms.queries.expand(norms.heads, -1), norms.keys.expand(norms.kv_heads, -1)))
    turned = norm_heads(rows[:, :, : len(weights)], weights.float() + norms.offset, norms.eps)
    signs = torch.tensor([-1.0, 1.0], dtype=cos_sin.dtype, device=qkv.device)
    turned = rotate(turned, positions, cos_sin, signs, interleaved).flatten(1).to(qkv.dtype)
    queries, keys = turned.split((norms.heads * norms.head_dim, norms.kv_heads * norms.head_dim), 1)
    return queries.contiguous(), keys.contiguous()
