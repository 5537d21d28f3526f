"""Norm and rotation of queries and keys as one launch: a program per token and head."""

import torch
import triton
import triton.language as tl

from sglang_dflash.kernels.norm_rope.triton import norm_and_rotate
from sglang_dflash.kernels.qk_norm_rope.naive import HeadNorms


@triton.jit
def _qk_norm_rope_kernel(
    qkv,  # [T, row_stride]
    positions,  # [T] int64
    query_norm,  # [HEAD_DIM]
    key_norm,  # [HEAD_DIM]
    cos_sin,  # [max_position, ROTARY_DIM]
    queries,  # [T, HEADS, HEAD_DIM]
    keys,  # [T, KV_HEADS, HEAD_DIM]
    row_stride,
    eps,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    ROTARY_DIM: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    NORM_OFFSET: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    BLOCK_REST: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    number = tl.program_id(1)
    source = qkv + token * row_stride + number * HEAD_DIM
    if number < HEADS:
        norm = query_norm
        sink = queries + (token * HEADS + number) * HEAD_DIM
    else:
        norm = key_norm
        sink = keys + (token * KV_HEADS + number - HEADS) * HEAD_DIM
    head = tl.arange(0, 1)
    angles = cos_sin + tl.load(positions + token) * ROTARY_DIM
    norm_and_rotate(
        source,
        sink,
        norm,
        angles,
        head,
        head < 1,
        eps,
        HEAD_DIM,
        ROTARY_DIM,
        INTERLEAVED,
        True,
        NORM_OFFSET,
        BLOCK_HALF,
        BLOCK_REST,
    )


def qk_norm_rope(
    qkv: torch.Tensor, positions: torch.Tensor, norms: HeadNorms, cos_sin: torch.Tensor, interleaved: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``naive.qk_norm_rope``, in one launch."""
    tokens, rotary_dim = qkv.shape[0], cos_sin.shape[1]
    queries = qkv.new_empty(tokens, norms.heads * norms.head_dim)
    keys = qkv.new_empty(tokens, norms.kv_heads * norms.head_dim)
    _qk_norm_rope_kernel[(tokens, norms.heads + norms.kv_heads)](
        qkv,
        positions,
        norms.queries,
        norms.keys,
        cos_sin,
        queries,
        keys,
        qkv.stride(0),
        norms.eps,
        HEADS=norms.heads,
        KV_HEADS=norms.kv_heads,
        HEAD_DIM=norms.head_dim,
        ROTARY_DIM=rotary_dim,
        INTERLEAVED=interleaved,
        NORM_OFFSET=norms.offset,
        BLOCK_HALF=triton.next_power_of_2(rotary_dim // 2),
        BLOCK_REST=triton.next_power_of_2(max(1, norms.head_dim - rotary_dim)),
        num_warps=1,
    )
    return queries, keys
