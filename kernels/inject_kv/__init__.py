"""Writing K and V of projected context features into the draft's cache, all layers at once."""

from collections.abc import Callable

from sglang_dflash.kernels.inject_kv.plan import InjectPlan, make_inject_plan

__all__ = ["InjectPlan", "choose", "make_inject_plan"]


def choose(device_type: str) -> Callable:
    """The ``inject_kv`` to use on ``device_type``: Triton on ``"cuda"``, torch elsewhere."""
    if device_type == "cuda":
        from sglang_dflash.kernels.inject_kv.triton import inject_kv
    else:
        from sglang_dflash.kernels.inject_kv.naive import inject_kv
    return inject_kv
