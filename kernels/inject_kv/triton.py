"""KV injection of all layers as one launch: a program per token and layer."""

import torch
import triton
import triton.language as tl

from sglang_dflash.kernels.inject_kv.plan import InjectPlan
from sglang_dflash.kernels.norm_rope.triton import norm_and_rotate


@triton.jit
def _inject_kv_kernel(
    kv,  # [T, L, 2, HEADS, HEAD_DIM]
    positions,  # [T] int64
    slots,  # [T] int64
    commit_lens,  # [T / width] int32
    norm_weights,  # [L, HEAD_DIM]
    cos_sin,  # [max_position, ROTARY_DIM]
    pointers,  # [2, L] int64
    like,  # any cache buffer, for its element type
    eps,
    width,
    slot_stride,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    ROTARY_DIM: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    HAS_COMMIT: tl.constexpr,
    HAS_NORM: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    layer = tl.program_id(1)
    layers = tl.num_programs(1)
    head = tl.arange(0, BLOCK_H)
    kept = head < HEADS
    if HAS_COMMIT:
        kept = kept & (token % width < tl.load(commit_lens + token // width))
    element = like.dtype.element_ty
    row = tl.load(slots + token) * slot_stride
    key_row = tl.load(pointers + layer).to(tl.pointer_type(element)) + row
    value_row = tl.load(pointers + layers + layer).to(tl.pointer_type(element)) + row
    if ALIGNED:
        # Without this a store through a loaded address goes element by element.
        key_row = tl.multiple_of(key_row, 16)
        value_row = tl.multiple_of(value_row, 16)
    key_base = kv + (token * layers + layer) * (2 * HEADS * HEAD_DIM)
    norm_and_rotate(
        key_base,
        key_row,
        norm_weights + layer * HEAD_DIM,
        cos_sin + tl.load(positions + token) * ROTARY_DIM,
        head,
        kept,
        eps,
        HEAD_DIM,
        ROTARY_DIM,
        INTERLEAVED,
        HAS_NORM,
        0.0,
        BLOCK_HALF,
        BLOCK_REST,
    )
    channel = tl.arange(0, BLOCK_D)
    in_value = kept[:, None] & (channel < HEAD_DIM)[None, :]
    offset = head[:, None] * HEAD_DIM + channel[None, :]
    value = tl.load(key_base + HEADS * HEAD_DIM + offset, mask=in_value, other=0.0)
    tl.store(value_row + offset, value.to(element), mask=in_value)


def inject_kv(
    kv: torch.Tensor,
    positions: torch.Tensor,
    slots: torch.Tensor,
    commit_lens: torch.Tensor | None,
    plan: InjectPlan,
) -> None:
    """As ``naive.inject_kv``, in one launch; rows beyond the commit length are not written at all."""
    layers, (_, heads, head_dim) = len(plan.key_buffers), plan.key_buffers[0].shape
    rotary_dim = plan.cos_sin.shape[1]
    _inject_kv_kernel[(positions.numel(), layers)](
        kv,
        positions,
        slots,
        slots if commit_lens is None else commit_lens,
        kv if plan.norm_weights is None else plan.norm_weights,
        plan.cos_sin,
        plan.pointers,
        plan.key_buffers[0],
        plan.eps,
        1 if commit_lens is None else positions.numel() // commit_lens.numel(),
        plan.slot_stride,
        HEADS=heads,
        HEAD_DIM=head_dim,
        ROTARY_DIM=rotary_dim,
        INTERLEAVED=plan.interleaved,
        HAS_COMMIT=commit_lens is not None,
        HAS_NORM=plan.norm_weights is not None,
        ALIGNED=plan.aligned,
        BLOCK_H=triton.next_power_of_2(heads),
        BLOCK_HALF=triton.next_power_of_2(rotary_dim // 2),
        BLOCK_REST=triton.next_power_of_2(max(1, head_dim - rotary_dim)),
        BLOCK_D=triton.next_power_of_2(head_dim),
    )
