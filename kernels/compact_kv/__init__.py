"""Moving the KV of accepted nodes to the front of the verify window."""

from collections.abc import Callable

from sglang_dflash.kernels.compact_kv.table import KVTable, make_kv_table

__all__ = ["KVTable", "choose", "make_kv_table"]


def choose(device_type: str) -> Callable:
    """The ``compact_kv`` to use on ``device_type``: Triton on ``"cuda"``, torch elsewhere."""
    if device_type == "cuda":
        from sglang_dflash.kernels.compact_kv.triton import compact_kv
    else:
        from sglang_dflash.kernels.compact_kv.naive import compact_kv
    return compact_kv
