"""What is imported is declared, and what is declared is imported; a command names the extra that it lacks."""

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from sglang_dflash import cli
from sglang_dflash.tools import extras

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Folders whose imports an extra may bring; all others of the package are served with what a plain install brings.
OF_EXTRAS = {"sglang_dflash/tools/bench": "bench", "sglang_dflash/tools/train": "train"}
# Test modules import each other by their bare names.
OWN = {"sglang_dflash"} | {path.stem for path in (ROOT / "tests").rglob("*.py")}


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in requirements}


PLAIN = names(PROJECT["dependencies"])
EXTRAS = {extra: names(lines) for extra, lines in PROJECT["optional-dependencies"].items()}
EVERYTHING = PLAIN.union(*EXTRAS.values())


def imported(folder: Path, files=None) -> dict[str, Path]:
    """Packages of others that the files below a folder import, each with a file that does."""
    found = {}
    for path in files or folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module]
            found |= {module.partition(".")[0]: path for module in modules}
    return {name: path for name, path in found.items() if name not in sys.stdlib_module_names and name not in OWN}


def of_package() -> dict[str | None, list[Path]]:
    """The package's files by the extra that their folder may ask for."""
    files: dict[str | None, list[Path]] = {None: list((ROOT / "kernels").rglob("*.py"))}
    for path in (ROOT / "sglang_dflash").rglob("*.py"):
        inside = path.relative_to(ROOT).as_posix()
        extra = next((extra for folder, extra in OF_EXTRAS.items() if inside.startswith(f"{folder}/")), None)
        files.setdefault(extra, []).append(path)
    return files


def undeclared(packages: dict[str, Path], declared: set[str]) -> list[str]:
    brought_by = metadata.packages_distributions()
    return [
        f"{name} in {path.relative_to(ROOT)}"
        for name, path in packages.items()
        if not declared & {dist.lower().replace("_", "-") for dist in brought_by.get(name, ())}
    ]


@pytest.mark.parametrize("extra", [None, *OF_EXTRAS.values()])
def test_what_the_package_imports_is_declared(extra):
    packages = imported(ROOT, of_package()[extra])
    assert "torch" in packages
    assert undeclared(packages, PLAIN | EXTRAS.get(extra, set())) == []


@pytest.mark.parametrize("folder", ["tests", "benchmarks"])
def test_what_the_tests_import_is_declared(folder):
    assert undeclared(imported(ROOT / folder), EVERYTHING | {"dflash"}) == []  # of requirements/oracle.txt


def test_an_undeclared_import_is_found(tmp_path):
    (tmp_path / "new.py").write_text("import scipy.stats\nfrom torch import nn\n")
    packages = imported(tmp_path)
    assert set(packages) == {"scipy", "torch"}
    assert undeclared({name: ROOT / "new.py" for name in packages}, PLAIN) == ["scipy in new.py"]


def test_nothing_is_declared_in_vain():
    brought_by = metadata.packages_distributions()
    used = {
        dist.lower().replace("_", "-")
        for files in of_package().values()
        for name in imported(ROOT, files)
        for dist in brought_by.get(name, ())
    }
    assert PLAIN - used == set()
    assert EXTRAS["bench"] | EXTRAS["train"] <= used


@pytest.mark.parametrize("words", [["bench"], ["train", "target"]])
def test_a_command_without_its_extra_says_what_to_install(monkeypatch, capsys, words):
    declared = ["torch", "matplotlib>=3.9; extra == 'bench'", "matplotlib>=3.9; extra == 'train'"]
    monkeypatch.setattr(extras.metadata, "requires", lambda package: declared)

    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(extras.metadata, "version", version)
    monkeypatch.setattr(sys, "argv", ["sglang-dflash", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    said = f"error: {words[0]}: needs matplotlib>=3.9 (pip install 'sglang-dflash[{words[0]}]')"
    assert capsys.readouterr().err.splitlines() == [said]


def test_an_old_version_is_not_enough(monkeypatch):
    monkeypatch.setattr(extras.metadata, "requires", lambda package: ["matplotlib>=3.9; extra == 'bench'"])
    monkeypatch.setattr(extras.metadata, "version", lambda name: "3.10")
    extras.require_extra("bench")
    monkeypatch.setattr(extras.metadata, "version", lambda name: "3.8")
    with pytest.raises(extras.DFlashError, match="needs matplotlib>=3.9"):
        extras.require_extra("bench")
