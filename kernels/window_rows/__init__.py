"""A draft's own rows of KV slots: the last of a request's context, and its block."""

from sglang_dflash.kernels.dispatch import by_device
from sglang_dflash.kernels.window_rows.naive import Window

__all__ = ["Window", "choose"]

choose = by_device(__name__, "window_rows")
