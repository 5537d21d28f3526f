"""Whose the tensors of an update are: the target's, or the draft's.

Target and draft name their layers alike, so that a name alone does not say it. In an update to "all" the draft's
tensors carry the prefix ``draft.``; in an update to one of them every tensor is that one's.
"""

from collections.abc import Mapping
from typing import Any

from sglang_dflash.checkpoints.config import ARCHITECTURES, is_speculators
from sglang_dflash.errors import DFlashError

TARGET, DRAFT = "target", "draft"
PREFIX = f"{DRAFT}."
# Names that no target has: without the prefix they tell of a draft pushed to the target.
_DRAFTS_ALONE = {"fc.weight", "hidden_norm.weight", "encoder.fc.weight", "encoder.output_norm_enc.weight"}


def own_name(name: str, role: str, selector: str) -> str | None:
    """A tensor's name as ``role`` knows it, None where it is the other's.

    role: who asks; selector: "target", "draft" or "all", as the update says.

    Raises:
        DFlashError: the tensor goes to the target, but is a draft's.
    """
    prefixed = name.startswith(PREFIX)
    if role == DRAFT:
        return name.removeprefix(PREFIX) if prefixed or selector == DRAFT else None
    if selector == TARGET and prefixed:
        raise DFlashError(f"tensor {name}", "is the draft's, in an update of the target", "use selector all or draft")
    if name.removeprefix("model.") in _DRAFTS_ALONE:
        remedy = f"call it {PREFIX}{name} in an update to all, or use selector draft"
        raise DFlashError(f"tensor {name}", "is a draft's, and would go to the target", remedy)
    return None if prefixed else name


def owner(config: Mapping[str, Any]) -> str:
    """``TARGET`` or ``DRAFT``: whose checkpoint has this ``config.json``."""
    names = config.get("architectures") or ()
    is_draft = is_speculators(config) or "dflash_config" in config or any(name in ARCHITECTURES for name in names)
    return DRAFT if is_draft else TARGET
