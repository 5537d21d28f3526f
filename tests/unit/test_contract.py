"""What host/ relies on holds in the installed SGLang."""

import importlib.metadata
from pathlib import Path

import pytest

from sglang_dflash.errors import DFlashError
from sglang_dflash.host.contract import (
    SGLANG_VERSION,
    Touch,
    all_touches,
    page,
    problem_with,
    require_version,
)


def test_every_row_holds():
    rows = all_touches()
    assert len(rows) > 20
    assert [problem for row in rows if (problem := problem_with(row)) is not None] == []


def test_every_row_says_why_and_until_when():
    assert [row.target for row in all_touches() if not (row.why.strip() and row.until.strip())] == []


def test_the_page_is_made_from_the_rows():
    written = (Path(__file__).parents[2] / "docs" / "host.md").read_text()
    assert written == page(), "run: python -m sglang_dflash.host.contract > docs/host.md"


@pytest.mark.parametrize(
    "row",
    [
        Touch("sglang.srt.no_such_module:name", "", ""),
        Touch("sglang.srt.server_args:NoSuchName", "", ""),
        Touch("sglang.srt.server_args:ServerArgs", "", "", ("no_such_field",)),
        Touch("sglang.srt.server_args:prepare_server_args", "", "", ("no_such_parameter",)),
    ],
)
def test_a_row_that_does_not_hold_is_found(row):
    assert problem_with(row).startswith(row.target)


def test_the_installed_version_is_the_pinned_one():
    assert require_version() == SGLANG_VERSION


@pytest.mark.parametrize("version", ["0.5.22", "0.6.0", None])
def test_another_version_is_refused(monkeypatch, version):
    def installed(_name):
        if version is None:
            raise importlib.metadata.PackageNotFoundError
        return version

    monkeypatch.setattr("importlib.metadata.version", installed)
    with pytest.raises(DFlashError, match=f"sglang=={SGLANG_VERSION}"):
        require_version()
