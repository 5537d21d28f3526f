"""What we rely on inside SGLang: one row per name, checked against the installed version.

Each module of this folder lists its rows in ``TOUCHES``. Importing this module imports no SGLang code.
"""

import importlib
import importlib.metadata
import inspect
import pkgutil
from typing import NamedTuple

from sglang_dflash.errors import DFlashError

SGLANG_VERSION = "0.5.23"


class Touch(NamedTuple):
    """One name of SGLang that we import, call, subclass or hook."""

    target: str  # "package.module:Qualified.name"
    why: str  # what we need it for
    until: str  # what would let us drop it
    parameters: tuple[str, ...] = ()  # parameter or field names that must exist


def installed_version() -> str:
    """Version of the installed SGLang; DFlashError where there is none."""
    try:
        return importlib.metadata.version("sglang")
    except importlib.metadata.PackageNotFoundError:
        raise DFlashError("sglang", "is not installed", f"pip install sglang=={SGLANG_VERSION}") from None


def require_version() -> str:
    """The installed version, or DFlashError unless it is the one this plug-in is written for."""
    version = installed_version()
    if version != SGLANG_VERSION:
        raise DFlashError(
            "sglang",
            f"version {version} is installed, this plug-in is written for {SGLANG_VERSION}",
            f"pip install sglang=={SGLANG_VERSION}",
        )
    return version


def touches_by_module() -> dict[str, tuple[Touch, ...]]:
    """The rows of every module in this folder that has some, by the module's name."""
    package = importlib.import_module("sglang_dflash.host")
    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__))
    modules = {name: importlib.import_module(f"sglang_dflash.host.{name}") for name in names}
    return {name: module.TOUCHES for name, module in modules.items() if hasattr(module, "TOUCHES")}


def all_touches() -> list[Touch]:
    """The rows of every module in this folder, in file order."""
    return [row for rows in touches_by_module().values() for row in rows]


def page() -> str:
    """docs/host.md: every row, by module; a test compares."""
    lines = [
        f"# What we touch of SGLang {SGLANG_VERSION}",
        "",
        "Every import of SGLang is in `sglang_dflash/host/`. Each of its modules lists what it touches, why,",
        "and what would let us drop it; a test resolves every name, and the fields and parameters that we",
        "rely on, in the installed version. This page is made from those lists:",
        "`python -m sglang_dflash.host.contract > docs/host.md`.",
    ]
    for name, rows in touches_by_module().items():
        lines += ["", f"## host/{name}.py", "", "| Name | Why | Until |", "|---|---|---|"]
        lines += [f"| `{row.target.removeprefix('sglang.')}` | {row.why} | {row.until} |" for row in rows]
    return "\n".join(lines) + "\n"


def problem_with(touch: Touch) -> str | None:
    """Why a row does not hold in the installed SGLang, or None where it does."""
    module_name, _, qualified = touch.target.partition(":")
    try:
        value = importlib.import_module(module_name)
        for part in filter(None, qualified.split(".")):
            value = getattr(value, part)
    except (ImportError, AttributeError) as error:
        return f"{touch.target}: {error}"
    if not touch.parameters:
        return None
    fields = set(getattr(value, "__dataclass_fields__", ())) | set(getattr(value, "__annotations__", ()))
    if not fields or not set(touch.parameters) <= fields:
        try:
            fields |= set(inspect.signature(value).parameters)
        except (TypeError, ValueError):
            pass
    missing = [name for name in touch.parameters if name not in fields]
    return f"{touch.target}: no {', '.join(missing)}" if missing else None


if __name__ == "__main__":
    print(page(), end="")
