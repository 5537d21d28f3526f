"""Which nodes of a tree a node may attend to."""

from sglang_dflash.kernels.dispatch import by_device

choose = by_device(__name__, "visibility_from_parents")
