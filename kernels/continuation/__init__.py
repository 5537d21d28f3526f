"""What may follow a request's context, from where the context ends by now."""

from sglang_dflash.kernels.dispatch import by_device

choose = by_device(__name__, "continuation")
