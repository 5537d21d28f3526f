"""Writing K and V of projected context features into the draft's cache, all layers at once."""

from sglang_dflash.kernels.dispatch import by_device
from sglang_dflash.kernels.inject_kv.plan import InjectPlan, make_inject_plan

__all__ = ["InjectPlan", "choose", "make_inject_plan"]

choose = by_device(__name__, "inject_kv")
