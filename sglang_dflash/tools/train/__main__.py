"""``python -m sglang_dflash.tools.train``."""

from sglang_dflash.tools.train.cli import app

app()
