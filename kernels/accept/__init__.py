"""Longest accepted path of a proposal, and the bonus token after it."""

from collections.abc import Callable


def choose(device_type: str) -> Callable:
    """The ``accept`` to use on ``device_type``: Triton on ``"cuda"``, torch elsewhere."""
    if device_type == "cuda":
        from sglang_dflash.kernels.accept.triton import accept
    else:
        from sglang_dflash.kernels.accept.naive import accept
    return accept
