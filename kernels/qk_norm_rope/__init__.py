"""Norm and rotary embedding of a draft layer's queries and keys."""

from sglang_dflash.kernels.dispatch import by_device
from sglang_dflash.kernels.qk_norm_rope.naive import HeadNorms

__all__ = ["HeadNorms", "choose"]

choose = by_device(__name__, "qk_norm_rope")
