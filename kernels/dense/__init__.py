"""Dense projections, where torch's own choice of library is a slow one."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch


class Linear(NamedTuple):
    """The two forms that a decoder needs."""

    project: Callable  # (x, weight, bias=None) -> x @ weight.T + bias
    add: Callable  # (residual, x, weight, bias=None) -> residual + x @ weight.T + bias


class Matrix(Protocol):
    """A weight to multiply by."""

    @property
    def weight(self) -> torch.Tensor:
        """[out, in]"""

    def project(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """x [n, in] @ weight.T + bias [out] -> [n, out]."""

    def add(self, residual: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """residual [n, out] + x [n, in] @ weight.T + bias [out] -> [n, out]."""


class PlainMatrix:
    """A weight as it lies in memory; new values in place are seen."""

    def __init__(self, weight: torch.Tensor):
        self.weight, self._linear = weight, choose(weight.device.type, weight.dtype)

    def project(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """As ``Matrix``."""
        return self._linear.project(x, self.weight, bias)

    def add(self, residual: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """As ``Matrix``."""
        return self._linear.add(residual, x, self.weight, bias)


def choose(device_type: str, dtype: torch.dtype) -> Linear:
    """The projections to use: oneDNN's for float32 on a ``"cpu"``, torch's elsewhere."""
    if device_type == "cpu" and dtype == torch.float32 and torch.backends.mkldnn.is_available():
        from sglang_dflash.kernels.dense import onednn

        return Linear(onednn.project, onednn.add)
    from sglang_dflash.kernels.dense import naive

    return Linear(naive.project, naive.add)


def matrix_of(layer, rows: int | None = None) -> Matrix:
    """``layer.weight``, or its first ``rows``, to multiply by: packed where a platform has packed just these."""
    packed = getattr(layer, "packed", None)
    weight = layer.weight.data if rows is None else layer.weight.data[:rows]
    return packed if packed is not None and packed.rows == weight.shape[0] else PlainMatrix(weight)
