"""A tree as first children and next siblings, the form in which SGLang's recurrent layers take it."""

from sglang_dflash.kernels.dispatch import by_device

choose = by_device(__name__, "links_from_parents")
