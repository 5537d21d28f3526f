"""A tree's visibility with the context before it, in the flat form that SGLang's attention backends take."""

from sglang_dflash.kernels.dispatch import by_device

choose = by_device(__name__, "flat_mask")
