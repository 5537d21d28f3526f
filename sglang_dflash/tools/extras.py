"""Optional dependencies: asked for before a command begins, so that none ends half-way for want of a package."""

from importlib import metadata

from packaging.requirements import Requirement

from sglang_dflash.errors import DFlashError

PACKAGE = "sglang-dflash"


def require_extra(extra: str) -> None:
    """Nothing, where every package of ``sglang-dflash[extra]`` is installed.

    Raises:
        DFlashError: naming what is missing, and the command that installs it.
    """
    missing = [f"{need.name}{need.specifier}" for need in _of_extra(extra) if not _installed(need)]
    if missing:
        raise DFlashError(extra, f"needs {', '.join(missing)}", f"pip install '{PACKAGE}[{extra}]'")


def _of_extra(extra: str) -> list[Requirement]:
    """The packages that ``extra`` adds, from this package's own metadata."""
    try:
        declared = map(Requirement, metadata.requires(PACKAGE) or ())
    except metadata.PackageNotFoundError:  # run from a source tree
        return []
    return [need for need in declared if not _plain(need) and need.marker.evaluate({"extra": extra})]


def _plain(need: Requirement) -> bool:
    return need.marker is None or need.marker.evaluate({"extra": ""})


def _installed(need: Requirement) -> bool:
    try:
        return need.specifier.contains(metadata.version(need.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False
