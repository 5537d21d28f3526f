"""Moving the KV of accepted nodes to the front of the verify window."""

from sglang_dflash.kernels.compact_kv.table import KVTable, make_kv_table
from sglang_dflash.kernels.dispatch import by_device

__all__ = ["KVTable", "choose", "make_kv_table"]

choose = by_device(__name__, "compact_kv")
