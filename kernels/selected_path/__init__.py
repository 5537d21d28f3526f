"""The selector's path through the candidates of a block (DFlash 2)."""

from sglang_dflash.kernels.dispatch import by_device
from sglang_dflash.kernels.selected_path.naive import Transform, transition_scores

__all__ = ["Transform", "choose", "transition_scores"]

choose = by_device(__name__, "selected_path")
