"""The tree of the most likely paths through a block's candidates."""

from sglang_dflash.kernels.dispatch import by_device

choose = by_device(__name__, "best_tree")
