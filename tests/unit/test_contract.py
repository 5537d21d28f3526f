"""What host/ relies on holds in the installed SGLang."""

import ast
import importlib.metadata
import inspect
import pkgutil
from pathlib import Path

import pytest

from sglang_dflash.errors import DFlashError
from sglang_dflash.host import usage
from sglang_dflash.host.contract import (
    SGLANG_VERSION,
    Touch,
    all_touches,
    problem_with,
    require_version,
)
from sglang_dflash.host.page import page
from sglang_dflash.host.usage import HOOKED, REPLACED, all_uses, covers, how, words


def test_every_row_holds():
    assert [problem for row in all_touches() if (problem := problem_with(row)) is not None] == []


def test_everything_that_the_code_touches_has_a_row():
    rows = all_touches()
    assert [use for use in all_uses() if not any(covers(row, use) for row in rows)] == []


def test_no_row_is_out_of_use():
    """A name that no import, hook or assignment mentions is that of an object which the code uses by its parts."""
    parts = {
        row.target: {row.target.replace(":", ".").rpartition(".")[2], *row.parameters, *row.attributes}
        for row in all_touches()
    }
    touched = {row.target for row in all_touches() if how(row)}
    assert [target for target, names in parts.items() if target not in touched and not names & words()] == []


def test_rows_of_hooks_check_the_parameters():
    """Ours are called with the parameters of what they stand for."""
    unchecked = [row.target for row in all_touches() if how(row) in (HOOKED, REPLACED) and not row.parameters]
    assert [target for target in unchecked if _has_parameters(target)] == []


def _has_parameters(target: str) -> bool:
    value = pkgutil.resolve_name(target)
    return inspect.isroutine(value) and bool(inspect.signature(value).parameters)


CODE = """
import os
import torch
import sglang.srt.models.llama as llama
from sglang.srt.models import registry
from sglang.srt.models.llama import LlamaModel as Model, LlamaMLP
from sglang.srt.plugins.hook_registry import HookRegistry

def change():
    registry.ModelRegistry.models = {}
    registry.find()
    llama.LlamaMLP = None
    Model.forward = LlamaMLP
    torch.Tensor.copy_ = None
    torch.compiler.set_stance("force_eager")
    os.environ.setdefault("SGLANG_SWITCH", "1")
    os.environ.setdefault("SGLANG_DFLASH_OURS", "1")
    HookRegistry.register("sglang.srt." + "a.B.c", change)
"""


def test_uses_are_read_from_the_code(monkeypatch, tmp_path):
    path = tmp_path / "host" / "file.py"
    path.parent.mkdir()
    path.write_text(CODE)
    monkeypatch.setattr(usage, "PACKAGE", tmp_path)
    monkeypatch.setattr(usage, "_value", lambda expression, module: eval(ast.unparse(expression)))
    found = {(use.target, use.how) for use in usage.uses_of(path)}
    assert found == {
        ("sglang.srt.models.llama:LlamaModel", "imported"),
        ("sglang.srt.models.llama:LlamaMLP", "imported"),
        ("sglang.srt.plugins.hook_registry:HookRegistry", "imported"),
        ("sglang.srt.models.registry:ModelRegistry", "imported"),
        ("sglang.srt.models.registry:find", "imported"),
        ("sglang.srt.models.registry:ModelRegistry.models", "replaced"),
        ("sglang.srt.models.llama:LlamaMLP", "replaced"),
        ("sglang.srt.models.llama:LlamaModel.forward", "replaced"),
        ("torch:Tensor.copy_", "replaced"),
        ("torch.compiler:set_stance", "replaced"),
        ("SGLANG_SWITCH", "set"),
        ("sglang.srt.a.B.c", "hooked"),
    }


def test_every_row_says_why_and_until_when():
    assert [row.target for row in all_touches() if not (row.why.strip() and row.until.strip())] == []


def test_the_page_is_made_from_the_rows():
    written = (Path(__file__).parents[2] / "docs" / "host.md").read_text()
    assert written == page(), "run: python -m sglang_dflash.host.page > docs/host.md"


@pytest.mark.parametrize(
    "row",
    [
        Touch("sglang.srt.no_such_module:name", "", ""),
        Touch("sglang.srt.server_args:NoSuchName", "", ""),
        Touch("sglang.srt.server_args:ServerArgs", "", "", ("no_such_field",)),
        Touch("sglang.srt.server_args:prepare_server_args", "", "", ("no_such_parameter",)),
        Touch("sglang.srt.model_executor.model_runner:ModelRunner", "", "", attributes=("no_such_attribute",)),
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
