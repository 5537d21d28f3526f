"""What is computed from a model's weights once is computed again after every update of them, however it copied."""

from collections.abc import Callable

from torch import nn

_ATTRIBUTE = "_sglang_dflash_derived"


def after_updates(model: nn.Module, recompute: Callable[[], object]) -> None:
    """Call ``recompute`` after every update of ``model``.

    It has to write where it wrote before: a captured graph goes on reading there.
    """
    if not hasattr(model, _ATTRIBUTE):
        setattr(model, _ATTRIBUTE, [])
    getattr(model, _ATTRIBUTE).append(recompute)


def recompute_derived(model: nn.Module) -> None:
    """Recompute all that was registered for ``model``, in its order."""
    for recompute in getattr(model, _ATTRIBUTE, ()):
        recompute()
