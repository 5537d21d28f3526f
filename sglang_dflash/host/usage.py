"""What the package's code touches of SGLang and torch, read from the code itself.

``contract.py`` keeps why and until when; tests compare the two, so that the list is neither short nor stale. Nothing
of SGLang is imported here: whether an imported name is a module is seen from its files.
"""

import ast
import importlib
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from sglang_dflash.host.contract import Touch

PACKAGE = Path(__file__).parents[1]
# Folders whose code runs in a server.
SERVING = ("plugin", "host", "engine", "cpu")
IMPORTED, HOOKED, REPLACED, SET = "imported", "hooked", "replaced", "set"
# Calls that change torch for the whole process, with the name of what they change.
_TORCH_CALLS = {"torch.compiler.set_stance", "torch.library.Library"}


class Use(NamedTuple):
    """One name that a file touches."""

    target: str  # "package.module:Qualified.name", as of contract.Touch
    how: str  # IMPORTED, HOOKED, REPLACED or SET (an environment variable)
    module: str  # of ours, below the package: "host.capture"


@cache
def all_uses() -> tuple[Use, ...]:
    """What all files of ``SERVING`` touch."""
    files = (path for folder in SERVING for path in sorted((PACKAGE / folder).rglob("*.py")))
    return tuple(use for path in files for use in uses_of(path))


def uses_of(path: Path) -> Iterator[Use]:
    """What one file touches."""
    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    tree = ast.parse(path.read_text())
    names = dict(_imports(tree))
    for target in names.values():
        if ":" in target:
            yield Use(target, IMPORTED, module)
    modules = {name: target for name, target in names.items() if ":" not in target}
    stored = {
        id(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield from _attribute(node, id(node) in stored, names, modules, module)
        elif isinstance(node, ast.Call):
            yield from _call(node, module)


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(local name, what it stands for): "package.module:Name", or "package.module" where it is a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "sglang":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield alias.asname or alias.name, whole if _is_module(whole) else f"{node.module}:{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in ("sglang", "torch"):
                    root = alias.name.split(".")[0]
                    yield alias.asname or root, alias.name if alias.asname else root


@cache
def _is_module(name: str) -> bool:
    found = importlib.util.find_spec("sglang")
    assert found is not None and found.submodule_search_locations is not None
    root = Path(found.submodule_search_locations[0])
    path = root.joinpath(*name.split(".")[1:])
    return path.is_dir() or path.with_suffix(".py").is_file()


def _attribute(node: ast.Attribute, stored: bool, names: dict, modules: dict, module: str) -> Iterator[Use]:
    """Names reached through an imported module, and those that are assigned to."""
    root, *rest = _dotted(node)
    if root in modules and modules[root].startswith("sglang") and len(rest) == 1:
        yield Use(f"{modules[root]}:{rest[0]}", REPLACED if stored else IMPORTED, module)
    elif stored and root in modules:
        yield Use(f"{modules[root]}:{'.'.join(rest)}", REPLACED, module)
    elif stored and ":" in names.get(root, ""):
        yield Use(f"{names[root]}.{'.'.join(rest)}", REPLACED, module)


def _call(node: ast.Call, module: str) -> Iterator[Use]:
    name = ".".join(_dotted(node.func))
    if name in _TORCH_CALLS:
        yield Use(":".join(name.rsplit(".", 1)), REPLACED, module)
    elif name == "HookRegistry.register":
        # The target is put together from constants of the module.
        yield Use(_value(node.args[0], module), HOOKED, module)
    elif name == "register_resolution_hook" and isinstance(node.args[0], ast.Constant):
        yield Use(str(node.args[0].value), HOOKED, module)
    elif name.startswith("os.environ.") and node.args and isinstance(node.args[0], ast.Constant):
        variable = str(node.args[0].value)
        if name.endswith("setdefault") and not variable.startswith("SGLANG_DFLASH_"):
            yield Use(variable, SET, module)


def _value(expression: ast.expr, module: str) -> str:
    code = compile(ast.Expression(expression), module, "eval")
    return eval(code, vars(importlib.import_module(f"{__package__.split('.')[0]}.{module}")))


def _dotted(node: ast.expr) -> list[str]:
    """["a", "b", "c"] of ``a.b.c``; [""] of anything else."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        return [*_dotted(node.value), node.attr]
    return [""]


def covers(row: Touch, use: Use) -> bool:
    """Whether a row of the contract is about a use."""
    if use.how == SET:
        return use.target in row.target or use.target in row.why
    if use.how == HOOKED:
        return use.target in (row.target.replace(":", "."), row.target.partition(":")[2])
    return row.target == use.target or (use.how == IMPORTED and row.target.startswith(use.target + "."))


def how(row: Touch) -> str:
    """How the code touches a row's name, in words; empty where only instances of it are used."""
    return ", ".join(sorted({use.how for use in all_uses() if covers(row, use)}))


@cache
def words() -> frozenset[str]:
    """Every attribute, function, argument and string of the serving folders, the rows of TOUCHES left out."""
    found = set()
    for folder in SERVING:
        for path in (PACKAGE / folder).rglob("*.py"):
            tree = ast.parse(path.read_text())
            tree.body = [node for node in tree.body if not _is_rows(node)]
            found |= set(_words(tree))
    return frozenset(found)


def _is_rows(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "TOUCHES" for t in node.targets)


def _words(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg | ast.keyword):
            yield node.arg or ""
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
