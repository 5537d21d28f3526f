"""Options from the environment, and the tables that docs/options.md shows."""

from pathlib import Path

import pytest

from sglang_dflash.errors import DFlashError
from sglang_dflash.options import VARIABLES, Options, table
from sglang_dflash.plugin import arguments, requests

DOCS = Path(__file__).parents[2] / "docs" / "options.md"


def test_defaults_and_values():
    options = Options.from_env({})
    assert [getattr(options, v.field) for v in VARIABLES] == [v.default for v in VARIABLES]
    assert Options.from_env({"SGLANG_DFLASH_WORKER": " Builtin "}).worker == "builtin"
    assert Options.from_env({"SGLANG_DFLASH_WORKER": ""}).worker == "dflash"
    assert Options.from_env({"SGLANG_DFLASH_TIMINGS": "/tmp/Rounds.jsonl"}).timings == "/tmp/Rounds.jsonl"


@pytest.mark.parametrize("variable", [v for v in VARIABLES if v.choices], ids=lambda v: v.name)
def test_a_wrong_value_names_variable_and_choices(variable):
    with pytest.raises(DFlashError) as caught:
        Options.from_env({variable.name: "nonsense"})
    assert variable.name in str(caught.value)
    assert all(choice in str(caught.value) for choice in variable.choices)


def test_the_docs_show_every_table():
    text = DOCS.read_text()
    assert table() in text, f"docs/options.md needs:\n{table()}"
    assert requests.table() in text, f"docs/options.md needs:\n{requests.table()}"
    for flag in arguments.RENAMED:
        assert f"| `{flag.old}` | `{flag.new}` |" in text


@pytest.mark.parametrize("row", requests.REFUSALS, ids=lambda row: row.feature)
def test_a_refusal_says_what_to_do(row):
    assert row.remedy.startswith(("drop ", "use "))
    assert f"| {row.feature} | {row.remedy} |" in requests.table()
