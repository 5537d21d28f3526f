"""The embedded pair: text generators, tokenizer, held-out sets and the trained weights.

Importing this package is cheap: no torch, no tokenizers, no SGLang.
"""

from pathlib import Path

PAIR_DIR = Path(__file__).parent
TARGET_DIR = PAIR_DIR / "weights" / "target"
DRAFT_DIR = PAIR_DIR / "weights" / "draft"
HELDOUT_DIR = PAIR_DIR / "heldout"
