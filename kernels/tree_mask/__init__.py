"""A tree's visibility with the context before it, in the flat form that SGLang's attention backends take."""

from collections.abc import Callable


def choose(device_type: str) -> Callable:
    """The ``flat_mask`` to use on ``device_type``: Triton on ``"cuda"``, torch elsewhere."""
    if device_type == "cuda":
        from sglang_dflash.kernels.tree_mask.triton import flat_mask
    else:
        from sglang_dflash.kernels.tree_mask.naive import flat_mask
    return flat_mask
