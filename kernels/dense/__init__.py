"""Dense projections, where torch's own choice of library is a slow one."""

from collections.abc import Callable
from typing import NamedTuple

import torch


class Linear(NamedTuple):
    """The two forms that a decoder needs."""

    project: Callable  # (x, weight, bias=None) -> x @ weight.T + bias
    add: Callable  # (residual, x, weight) -> residual + x @ weight.T


def choose(device_type: str, dtype: torch.dtype) -> Linear:
    """The projections to use: oneDNN's for float32 on a ``"cpu"``, torch's elsewhere."""
    if device_type == "cpu" and dtype == torch.float32 and torch.backends.mkldnn.is_available():
        from sglang_dflash.kernels.dense import onednn

        return Linear(onednn.project, onednn.add)
    from sglang_dflash.kernels.dense import naive

    return Linear(naive.project, naive.add)
