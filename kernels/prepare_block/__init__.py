"""Ids, positions and KV slots of the draft's block ``[anchor, mask x (B - 1)]``."""

from collections.abc import Callable


def choose(device_type: str) -> Callable:
    """The ``prepare_block`` to use on ``device_type``: Triton on ``"cuda"``, torch elsewhere."""
    if device_type == "cuda":
        from sglang_dflash.kernels.prepare_block.triton import prepare_block
    else:
        from sglang_dflash.kernels.prepare_block.naive import prepare_block
    return prepare_block
