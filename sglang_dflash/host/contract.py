"""What we rely on inside SGLang: one row per name, checked against the installed version.

Each module of the adapter folders lists its rows in ``TOUCHES``. Importing this module imports no SGLang code.
"""

import ast
import importlib
import importlib.metadata
import inspect
import pkgutil
import textwrap
from typing import Any, NamedTuple

from sglang_dflash.errors import DFlashError

SGLANG_VERSION = "0.5.23"


class Touch(NamedTuple):
    """One name of SGLang that we import, call, subclass or hook, or of torch that we change."""

    target: str  # "package.module:Qualified.name"
    why: str  # what we need it for
    until: str  # what would let us drop it
    parameters: tuple[str, ...] = ()  # parameter or field names that must exist
    attributes: tuple[str, ...] = ()  # what instances of the class must have


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


# The folders that import SGLang: what it calls us by, what we call, and what the CPU platform does in its place.
ADAPTERS = ("plugin", "host", "cpu.host")


def touches_by_module() -> dict[str, tuple[Touch, ...]]:
    """The rows of every module of ``ADAPTERS`` that has some, by the module's name below the package."""
    found = {}
    for folder in ADAPTERS:
        package = importlib.import_module(f"sglang_dflash.{folder}")
        for name in sorted(info.name for info in pkgutil.iter_modules(package.__path__)):
            module = importlib.import_module(f"sglang_dflash.{folder}.{name}")
            if hasattr(module, "TOUCHES"):
                found[f"{folder}.{name}"] = module.TOUCHES
    return found


def all_touches() -> list[Touch]:
    """The rows of every module, in file order."""
    return [row for rows in touches_by_module().values() for row in rows]


def problem_with(touch: Touch) -> str | None:
    """Why a row does not hold in the installed SGLang, or None where it does."""
    module_name, _, qualified = touch.target.partition(":")
    try:
        value: Any = importlib.import_module(module_name)
        for part in filter(None, qualified.split(".")):
            value = getattr(value, part)
    except (ImportError, AttributeError) as error:
        return f"{touch.target}: {error}"
    missing = [name for name in touch.attributes if name not in _attributes(value)]
    if missing:
        return f"{touch.target}: instances have no {', '.join(missing)}"
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


def _attributes(kind: type) -> set[str]:
    """What a class defines, and what its methods, or its bases', set on ``self``."""
    found = set(dir(kind))
    for base in kind.__mro__ if isinstance(kind, type) else ():
        if base.__module__ == "builtins" or base.__module__.startswith("torch."):
            continue
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(base)))):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and ast.unparse(node.value) == "self"
            ):
                found.add(node.attr)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
    return found
