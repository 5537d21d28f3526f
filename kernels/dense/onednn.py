"""float32 projections through oneDNN on a host.

torch multiplies float32 matrices with MKL, whose kernels for a block of 16 rows take two to three times as long
as oneDNN's on processors that are not Intel's. oneDNN reorders the weights in every call, though, so that small
products, whose weights come from a far cache in each pass, stay where they are.
"""

import torch
import torch.nn.functional as F

# Multiplications from which oneDNN is the faster one (docs/cpu-platform.md).
MIN_WORK = 3_000_000

_pointwise = torch.ops.mkldnn._linear_pointwise.default
_pointwise_binary = torch.ops.mkldnn._linear_pointwise.binary


def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """``project`` in oneDNN, whatever the size."""
    return _pointwise(x, weight, bias, "none", [], "")


def project(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """``x @ weight.T + bias``. x: [..., in]; weight: [out, in]; bias: [out]; all float32."""
    if x.numel() * weight.shape[0] < MIN_WORK:
        return F.linear(x, weight, bias)
    return product(x, weight, bias)


def add(
    residual: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """``residual + x @ weight.T + bias``. residual: [n, out]; x: [n, in]; weight: [out, in]; bias: [out]; float32."""
    if x.numel() * weight.shape[0] < MIN_WORK:
        return torch.addmm(residual if bias is None else residual + bias, x, weight.t())
    return _pointwise_binary(x, residual, weight, bias, "add")
