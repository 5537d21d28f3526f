"""What is installed, and where a server would run."""

from rich.console import Console

from sglang_dflash.errors import DFlashError
from sglang_dflash.host.contract import require_version
from sglang_dflash.tools.bench.provenance import versions
from sglang_dflash.tools.pair import DRAFT_DIR, TARGET_DIR


def check_setup(console: Console) -> None:
    """Print the versions.

    Raises:
        DFlashError: servers could not start.
    """
    console.print("  ".join(f"{name} {version or 'not installed'}" for name, version in versions().items()))
    require_version()
    for folder in (TARGET_DIR, DRAFT_DIR):
        if not (folder / "model.safetensors").exists():
            raise DFlashError("pair", f"{folder} holds no weights", "clone again, or run sglang-dflash train")
