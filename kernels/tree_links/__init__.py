"""A tree as first children and next siblings, the form in which SGLang's recurrent layers take it."""

from collections.abc import Callable


def choose(device_type: str) -> Callable:
    """The ``links_from_parents`` to use on ``device_type``: Triton on ``"cuda"``, torch elsewhere."""
    if device_type == "cuda":
        from sglang_dflash.kernels.tree_links.triton import links_from_parents
    else:
        from sglang_dflash.kernels.tree_links.naive import links_from_parents
    return links_from_parents
