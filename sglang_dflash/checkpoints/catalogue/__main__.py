"""Writes what is made from the catalogue into a checkout: ``launch/<name>.sh`` and ``docs/models.md``."""

from pathlib import Path

from sglang_dflash.checkpoints.catalogue.entries import load_catalogue
from sglang_dflash.checkpoints.catalogue.scripts import REGENERATE, script
from sglang_dflash.checkpoints.catalogue.tables import page

ROOT = Path(__file__).parents[3]


def texts() -> dict[str, str]:
    """Text of every file by its path in the checkout."""
    catalogue = load_catalogue()
    made = {f"launch/{entry.name}.sh": script(entry) for entry in catalogue if entry.served}
    return made | {"docs/models.md": page(catalogue)}


def stale(root: Path = ROOT) -> list[Path]:
    """Scripts of an earlier catalogue: made from it, but of no entry."""
    names = texts()
    return [
        path
        for path in (root / "launch").glob("*.sh")
        if REGENERATE in path.read_text() and f"launch/{path.name}" not in names
    ]


def write(root: Path = ROOT) -> None:
    """Bring the checkout up to date."""
    for path in stale(root):
        path.unlink()
    for name, text in texts().items():
        path = root / name
        path.write_text(text)
        if path.suffix == ".sh":
            path.chmod(0o755)


if __name__ == "__main__":
    write()
