"""Operators that torch has for accelerators alone and SGLang's models call on every device."""

import torch

_library: torch.library.Library | None = None


def register() -> None:
    """Idempotent; leaves alone what this torch already has for CPU."""
    global _library
    if _library is not None:
        return
    _library = torch.library.Library("aten", "IMPL")
    if not torch._C._dispatch_has_kernel_for_dispatch_key("aten::mm.dtype", "CPU"):
        _library.impl("mm.dtype", mm_in_dtype, "CPU")


def mm_in_dtype(a: torch.Tensor, b: torch.Tensor, out_dtype: torch.dtype) -> torch.Tensor:
    """``torch.mm(a, b, out_dtype=...)``: a [n, k], b [k, m] -> [n, m], summed in ``out_dtype``."""
    return torch.mm(a.to(out_dtype), b.to(out_dtype))
