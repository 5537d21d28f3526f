"""Operators with fewer torch calls than SGLang's reference ones; equal results up to rounding.

A tiny model's step is made of call overhead, so what counts here is the number of torch calls.
"""

from functools import cache

import torch
import torch.nn.functional as F

from sglang_dflash.kernels.dense import choose

_float32 = choose("cpu", torch.float32)


def inverse_rms(x: torch.Tensor, eps: float) -> torch.Tensor:
    """1 / sqrt(mean(x * x) + eps) over the last axis of a float32 [..., n]: [..., 1].

    The mean is a product with a column of 1/n: one call where a reduction and a division are two slower ones.
    """
    width = x.shape[-1]
    squares = (x * x).view(-1, width)
    return torch.addmm(_constant(1, eps), squares, _constant(width, 1 / width)).rsqrt_().view(*x.shape[:-1], 1)


@cache
def _constant(rows: int, value: float) -> torch.Tensor:
    return torch.full((rows, 1), value)


def normed(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """RMS norm of x [..., n] by weight [n], in x's dtype."""
    if x.dtype == torch.float32:
        return (x * weight).mul_(inverse_rms(x, eps))
    return torch.rms_norm(x, weight.shape, weight.to(x.dtype), eps)


def rms_norm(self, x, residual=None, post_residual_addition=None, quant_linear=None):
    """Forward of SGLang's RMSNorm: norm(x), or (norm(x + residual), x + residual). x: [..., hidden]."""
    plain = self.variance_size_override is None and not (self.cast_x_before_out_mul or self.fp32_residual)
    if not plain or self.override_orig_dtype is not None or post_residual_addition is not None:
        return self.forward_native(x, residual, post_residual_addition, quant_linear)
    if residual is None:
        return normed(x, self.weight, self.variance_epsilon)
    if x.dtype == torch.float32:
        x = x + residual
        return normed(x, self.weight, self.variance_epsilon), x
    # The sum is normed before it is rounded, as in the reference.
    exact = x.float() + residual.float()
    return normed(exact, self.weight.float(), self.variance_epsilon).to(x.dtype), exact.to(x.dtype)


def gemma_rms_norm(self, x):
    """Forward of SGLang's Gemma4RMSNorm. x: [..., hidden].

    A norm without a scale of its own still has a weight, into which the router folds its scale.
    """
    weight = self.weight + self.scale_shift if self.with_scale and self.scale_shift else self.weight
    if x.dtype == torch.float32:
        return normed(x.contiguous(), weight, self.eps)
    return normed(x.float(), weight.float(), self.eps).to(x.dtype)


def joint_square_sums(x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
    """Sums of squares of the rows of x1 [n, a], then of x2 [n, b]: [2 * n] float32."""
    return torch.cat((x1.float().square().sum(1), x2.float().square().sum(1)))


def joint_norm(x1, x2, w1, w2, sum_sq, tp_world: int = 1, eps: float = 1e-5) -> tuple[torch.Tensor, torch.Tensor]:
    """RMS norms of x1 [n, a] and x2 [n, b] by the square sums [2 * n] of whole rows split over ``tp_world`` ranks."""
    sums = sum_sq.chunk(2)
    return tuple(
        (x.float() * (total / (x.shape[1] * tp_world) + eps).rsqrt()[:, None] * weight.float()).to(x.dtype)
        for x, weight, total in zip((x1, x2), (w1, w2), sums, strict=True)
    )


def silu_and_mul(self, x):
    """Forward of SGLang's SiluAndMul: silu(first half) * second half. x: [..., 2 * n] -> [..., n]."""
    gate, up = x.chunk(2, -1)
    return F.silu(gate).mul_(up)


def dense(layer, x, bias=None):
    """An unquantised projection: x [..., in] @ layer.weight [out, in].T + bias [out]."""
    packed = vars(layer).get("packed")
    if packed is not None:
        return packed.project(x, bias)
    return _float32.project(x, layer.weight, bias) if x.dtype == torch.float32 else F.linear(x, layer.weight, bias)


def rotary_embedding(self, positions, query, key, offsets=None, fused_set_kv_buffer_arg=None):
    """Forward of SGLang's RotaryEmbedding. query, key: [tokens, heads * head_size]; positions: [tokens]."""
    if not self.is_neox_style or self.rotary_dim != self.head_size or fused_set_kv_buffer_arg is not None:
        return self.forward_native(positions, query, key, offsets, fused_set_kv_buffer_arg)
    if offsets is not None:
        positions = positions + offsets
    cos, sin = rotation(self.cos_sin_cache.index_select(0, positions.flatten()), query.dtype)
    shape = (positions.numel(), -1, self.head_size)
    return (
        rotate(query.view(shape), cos, sin).view(query.shape),
        rotate(key.view(shape), cos, sin).view(key.shape),
    )


def rotation(cos_sin: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """[n, dim] of cosines and sines by half -> cosines and signed sines, both [n, 1, dim], for ``rotate``."""
    cos, sin = cos_sin.to(dtype).chunk(2, -1)
    return torch.cat((cos, cos), -1)[:, None], torch.cat((-sin, sin), -1)[:, None]


def rotate(x: torch.Tensor, cos: torch.Tensor, signed_sin: torch.Tensor) -> torch.Tensor:
    """Rotate the halves of the last axis (NeoX style). x: [n, heads, dim]; cos, signed_sin: [n, 1, dim]."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), signed_sin)


def install(platform_key: str) -> None:
    """Register the operators with SGLang's dispatch (idempotent)."""
    from sglang_dflash.cpu.experts import run_experts
    from sglang_dflash.cpu.host.operators import (
        ROTARY_CLASSES,
        Gemma4RMSNorm,
        RMSNorm,
        SiluAndMul,
        UnquantizedFusedMoEMethod,
        register_forward,
    )

    register_forward(RMSNorm, rms_norm, platform_key)
    register_forward(Gemma4RMSNorm, gemma_rms_norm, platform_key)
    register_forward(SiluAndMul, silu_and_mul, platform_key)
    register_forward(UnquantizedFusedMoEMethod, run_experts, platform_key)
    for rotary in ROTARY_CLASSES:
        register_forward(rotary, rotary_embedding, platform_key)
