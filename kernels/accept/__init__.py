"""Longest accepted path of a proposal, and the bonus token after it."""

from sglang_dflash.kernels.dispatch import by_device

choose = by_device(__name__, "accept")
