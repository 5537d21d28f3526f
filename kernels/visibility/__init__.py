"""Which nodes of a tree a node may attend to."""

from collections.abc import Callable


def choose(device_type: str) -> Callable:
    """The ``visibility_from_parents`` to use on ``device_type``: Triton on ``"cuda"``, torch elsewhere."""
    if device_type == "cuda":
        from sglang_dflash.kernels.visibility.triton import visibility_from_parents
    else:
        from sglang_dflash.kernels.visibility.naive import visibility_from_parents
    return visibility_from_parents
