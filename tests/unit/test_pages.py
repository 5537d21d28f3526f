"""Pages for contributors: what they name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Paths in pages are relative to the repository, the package or the tests' folders.
BASES = (ROOT, ROOT / "sglang_dflash", ROOT / "tests" / "unit", ROOT / "tests" / "kernels", ROOT / "docs")
PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|md|toml))`|\]\(([\w./-]+)(?:#\w+)?\)")


def missing(page: Path) -> list[str]:
    named = {first or second for first, second in PATH.findall(page.read_text())}
    assert named
    return sorted(name for name in named if not any((base / name).exists() for base in BASES))


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/log.md"])
def test_every_file_that_a_page_names_exists(name):
    assert set(missing(ROOT / name)) - {"naive.py", "triton.py", "__init__.py"} == set()


def test_a_file_that_is_not_there_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("See `host/no_such_file.py`, `tests/e2e/servers.py` and [that](docs/none.md).")
    assert missing(page) == ["docs/none.md", "host/no_such_file.py"]


def test_the_workflow_runs_what_ci_runs():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert re.findall(r"- run: (.+)", workflow) == [".ci/run"]
