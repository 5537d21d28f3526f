"""``python -m sglang_dflash.train``."""

from sglang_dflash.train.cli import app

app()
