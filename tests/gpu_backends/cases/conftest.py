"""The plug-in as SGLang's processes load it, and the launches that the tests of this folder share."""

import functools
import json
import shutil
from pathlib import Path

import pytest
from sglang.srt.plugins import load_plugins

load_plugins()

from rounds import Launch  # noqa: E402

from sglang_dflash.tools.pair import DRAFT_DIR  # noqa: E402


@pytest.fixture(scope="session")
def launches(tmp_path_factory):
    """``launches(page, window, sliding, width, block)`` -> the launch with these settings, made once.

    Also ``cuda`` and ``sampled``, as ``Launch`` takes them.
    """

    @functools.cache
    def get(page=1, window=0, sliding=False, width=16, block=16, **options) -> Launch:
        flags = ["--page-size", str(page)]
        if window:
            flags += ["--speculative-draft-window-size", str(window)]
        if width != block:
            flags += ["--speculative-num-draft-tokens", str(width), "--speculative-dflash-block-size", str(block)]
        draft = sliding_draft(tmp_path_factory.mktemp("draft")) if sliding else str(DRAFT_DIR)
        return Launch(*flags, draft=draft, **options)

    return get


def sliding_draft(folder: Path) -> str:
    """The pair's draft with one causal layer over a window, and one over everything in both directions."""
    folder = folder / "sliding"
    shutil.copytree(DRAFT_DIR, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config |= {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 24, "use_sliding_window": True}
    path.write_text(json.dumps(config))
    return str(folder)
