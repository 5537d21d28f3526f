"""What KV injection needs besides the features, fixed once the draft's pool exists."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from sglang_dflash.errors import DFlashError


class InjectPlan(NamedTuple):
    """Cache buffers of ``L`` draft layers and how a key becomes a cached key."""

    key_buffers: tuple[torch.Tensor, ...]  # L x [slots, kv_heads, head_dim]
    value_buffers: tuple[torch.Tensor, ...]  # L x [slots, kv_heads, head_dim]
    pointers: torch.Tensor  # [2, L] int64: base addresses of keys, then values
    aligned: bool  # every slot of every buffer begins at a multiple of 16 bytes
    slot_stride: int  # elements from one slot to the next, the same in every buffer
    norm_weights: torch.Tensor | None  # [L, head_dim], per-layer k-norm; None where there is none
    eps: float  # of the k-norm
    cos_sin: torch.Tensor  # [max_position, rotary_dim]: cosines, then sines
    signs: torch.Tensor  # [2] -1, +1, in the dtype of cos_sin
    interleaved: bool  # rotary pairs are (2i, 2i + 1) instead of (i, i + rotary_dim / 2)


def make_inject_plan(
    key_buffers: Sequence[torch.Tensor],
    value_buffers: Sequence[torch.Tensor],
    norm_weights: torch.Tensor | None,
    eps: float,
    cos_sin: torch.Tensor,
    interleaved: bool = False,
) -> InjectPlan:
    """Plan over the draft's buffers; DFlashError where their shapes do not fit each other."""
    shape, stride = tuple(key_buffers[0].shape), key_buffers[0].stride(0)
    if len(shape) != 3:
        what = f"lays the draft's cache out as {shape}, not as [slots, kv_heads, head_dim]"
        raise DFlashError("SGLANG_USE_HND_KVCACHE", what, "unset it")
    for name, buffers in (("key_buffers", key_buffers), ("value_buffers", value_buffers)):
        for layer, buffer in enumerate(buffers):
            alike = tuple(buffer.shape) == shape and buffer.stride(0) == stride
            if not alike or not buffer[0].is_contiguous():
                raise DFlashError(
                    f"{name}[{layer}]",
                    f"shape {tuple(buffer.shape)}, strides {buffer.stride()}",
                    f"need {shape} with contiguous rows, {stride} elements apart, like key_buffers[0]",
                )
    if len(value_buffers) != len(key_buffers):
        raise DFlashError("value_buffers", f"{len(value_buffers)} layers", f"need {len(key_buffers)}")
    if norm_weights is not None and tuple(norm_weights.shape) != (len(key_buffers), shape[2]):
        raise DFlashError("norm_weights", f"shape {tuple(norm_weights.shape)}", f"need {(len(key_buffers), shape[2])}")
    device = key_buffers[0].device
    addresses = [[b.data_ptr() for b in key_buffers], [b.data_ptr() for b in value_buffers]]
    return InjectPlan(
        key_buffers=tuple(key_buffers),
        value_buffers=tuple(value_buffers),
        pointers=torch.tensor(addresses, dtype=torch.int64, device=device),
        aligned=all(n % 16 == 0 for n in (stride * key_buffers[0].element_size(), *addresses[0], *addresses[1])),
        slot_stride=stride,
        norm_weights=norm_weights,
        eps=eps,
        cos_sin=cos_sin,
        signs=torch.tensor([-1.0, 1.0], dtype=cos_sin.dtype, device=device),
        interleaved=interleaved,
    )
