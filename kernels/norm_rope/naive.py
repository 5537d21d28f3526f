"""Norm and rotation of heads in torch."""

import torch
import torch.nn.functional as F


def norm_heads(heads: torch.Tensor, weights: torch.Tensor | None, eps: float) -> torch.Tensor:
    """RMS norm over the last axis, in fp32: heads [..., head_dim] -> fp32, same shape.

    weights: what the norm multiplies by, [..., head_dim], broadcast over heads; None where there is no norm.
    """
    if weights is None:
        return heads.float()
    return F.rms_norm(heads.float(), heads.shape[-1:], eps=eps) * weights


def rotate(
    heads: torch.Tensor, positions: torch.Tensor, cos_sin: torch.Tensor, signs: torch.Tensor, interleaved: bool
) -> torch.Tensor:
    """Rotary embedding of the first rotary_dim channels, the others unchanged.

    heads [T, x, heads, head_dim]; positions [T] int64; cos_sin [max_position, rotary_dim], cosines, then sines;
    signs [2] -1, +1. Interleaved pairs are (2i, 2i + 1) instead of (i, i + rotary_dim / 2).
    """
    rotary_dim = cos_sin.shape[1]
    cos, sin = cos_sin.index_select(0, positions)[:, None, None].chunk(2, -1)
    axis, split = (-1, (-1, 2)) if interleaved else (-2, (2, -1))
    pairs = heads[..., :rotary_dim].unflatten(-1, split)
    signed_sin = sin.unsqueeze(axis) * (signs if interleaved else signs.unsqueeze(1))
    rotated = torch.addcmul(pairs * cos.unsqueeze(axis), pairs.flip(axis), signed_sin).flatten(-2)
    if rotary_dim == heads.shape[-1]:
        return rotated
    return torch.cat((rotated, heads[..., rotary_dim:]), -1)
