"""The shape of the code: who may import what, file sizes, names."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sglang_dflash.host.contract import ADAPTERS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "sglang_dflash"
# A symlink leads from the package to kernels/: list the folder itself once.
SOURCES = sorted(
    path
    for folder in (PACKAGE, ROOT / "kernels")
    for path in folder.rglob("*.py")
    if not (folder == PACKAGE and path.is_relative_to(PACKAGE / "kernels"))
)
MAX_LINES, MAX_FUNCTION_LINES = 400, 60
# Synonyms that the glossary of docs/architecture.md bans, as whole words of public names.
# (gamma is left to training, where it is the decay of the position weights).
BANNED = {"verifier", "speculator", "assistant", "noise", "rollback", "accept_len", "materialize"}
# From the ground up: a room imports from those before it.
ROOMS = ("errors", "types", "options", "gpus", "kernels", "reference", "checkpoints", "host", "engine", "cpu", "plugin")
ROOMS += ("tools", "cli", "__main__")
IMPORTS_NOTHING_HEAVY = (
    "sglang_dflash",
    "sglang_dflash.checkpoints.config",
    "sglang_dflash.options",
    "sglang_dflash.checkpoints.checks",
    "sglang_dflash.checkpoints.checks.rules",
    "sglang_dflash.checkpoints.catalogue",
    "sglang_dflash.tools.doctor.machine",
)


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def adapts(path: Path) -> bool:
    """Whether a file lies in a folder that may import SGLang."""
    return any(PACKAGE / folder.replace(".", "/") in path.parents for folder in ADAPTERS)


def test_every_file_is_looked_at():
    listed = subprocess.run(["git", "ls-files", "sglang_dflash", "kernels"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    tracked = {name for name in listed.stdout.split() if name.endswith(".py") and (ROOT / name).exists()}
    assert tracked and tracked <= {relative(path) for path in SOURCES}


def test_only_the_adapter_folders_import_sglang():
    assert [relative(p) for p in SOURCES if "sglang" in imported(p) and not adapts(p)] == []


def room(path: Path) -> str:
    """The folder below the package, or the file's own name at its top."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0] if parts[0] == "kernels" else parts[1]


def test_imports_go_one_way():
    upwards = []
    for path in SOURCES:
        if path == PACKAGE / "__init__.py":
            continue
        for node in ast.walk(tree(path)):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for parts in (name.split(".") for name in names):
                if parts[0] == PACKAGE.name and len(parts) > 1 and ROOMS.index(parts[1]) > ROOMS.index(room(path)):
                    upwards.append(f"{relative(path)} -> {parts[1]}")
    assert upwards == []


def test_kernels_know_only_each_other_and_the_hand_offs():
    allowed = ("sglang_dflash.kernels", "sglang_dflash.types", "sglang_dflash.errors")
    for path in SOURCES:
        if ROOT / "kernels" not in path.parents:
            continue
        modules = {n.module for n in ast.walk(tree(path)) if isinstance(n, ast.ImportFrom) and n.module}
        ours = {module for module in modules if module.split(".")[0] == "sglang_dflash"}
        assert all(module.startswith(allowed) for module in ours), relative(path)


def test_kernels_at_the_root_is_hugging_faces():
    """SGLang needs their package; a package of ours by that name would shadow it at the repository's root."""
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert (PACKAGE / "kernels").is_symlink()
    code = "import kernels; print(kernels.get_kernel.__module__)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("kernels")


@pytest.mark.parametrize("module", IMPORTS_NOTHING_HEAVY)
def test_light_modules_stay_light(module):
    code = f"import sys, {module}; print([m for m in ('torch', 'sglang', 'transformers') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.stdout.strip() == "[]", run.stderr


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_sizes(path):
    assert len(path.read_text().splitlines()) < MAX_LINES
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            # The signature is not counted: a kernel's alone takes a screen.
            assert node.end_lineno - node.body[0].lineno + 1 < MAX_FUNCTION_LINES, node.name


def public_names(path: Path) -> set[str]:
    """Functions, classes, parameters and fields that do not start with an underscore."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


def test_the_glossary_says_what_is_banned():
    glossary = (ROOT / "docs" / "architecture.md").read_text().partition("## Words")[2]
    instead = " ".join(row.split("|")[3] for row in glossary.splitlines() if row.startswith("| ")).lower()
    assert {word for word in BANNED if word.replace("_", " ") not in instead.replace("_", " ")} == set()


@pytest.mark.parametrize("path", [p for p in SOURCES if not adapts(p)], ids=relative)
def test_public_names_keep_to_the_glossary(path):
    for name in public_names(path):
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
        found = {word for word in BANNED if re.search(rf"(?:^|_){word}(?:_|$)", words)}
        assert not found, f"{name}: {found}"


# Traces of the machine that the code was written on.
TRACES = re.compile(r"/(?:work|root|home)/\w|\bshared/(?:reference|prototype|gpukit)|pypi\.(?!org)|\bsub-?agent")


def test_no_traces_of_a_workplace():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.suffix in (".py", ".sh", ".md", ".toml", ".json", ".cfg", "") and path.is_file():
            found += [f"{name}: {hit}" for hit in TRACES.findall(path.read_text(errors="ignore"))]
    assert found == []


def test_no_two_test_files_have_one_name():
    """A whole run could not collect them."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
