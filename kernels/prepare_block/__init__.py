"""Ids, positions and KV slots of the draft's block ``[anchor, mask x (B - 1)]``."""

from sglang_dflash.kernels.dispatch import by_device

choose = by_device(__name__, "prepare_block")
