"""The table of round costs, from rows as the workers write them."""

import json
import re

import pytest
from rich.console import Console

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.bench import roundcost


def row(bs: int, launches: int, parts=("target", "draft", "worker")) -> dict:
    """One decode round: every part launches and copies, none waits."""
    counts = {part: {"launches": launches, "allocations": 2, "copies": 1, "syncs": 0} for part in parts}
    return {"bs": bs, "parts": counts, "operations": {part: {"mm": launches} for part in parts}}


ROUNDS = {
    "builtin": [row(1, 9), row(1, 11), row(1, 10), row(4, 20)],
    "dflash": [row(1, 5), row(4, 7), row(4, 7, ("target", "worker")), row(3, 99), row(4, 8)],
}


def test_medians_are_taken_over_the_rounds_of_one_size():
    found = roundcost.of_size(ROUNDS["dflash"], 4)
    assert len(found) == 3
    medians = roundcost.medians(found, "parts", roundcost.PARTS)
    assert medians["target"] == {"launches": 7, "allocations": 2, "copies": 1, "syncs": 0}
    # A round without a draft pass counts as one without operations.
    assert medians["draft"]["launches"] == 7 and medians["worker"]["launches"] == 7
    assert roundcost.medians(found, "operations", ("draft",)) == {"draft": {"mm": 7}}
    with pytest.raises(DFlashError, match="no round had 2 requests"):
        roundcost.of_size(ROUNDS["dflash"], 2)


@pytest.mark.parametrize("text", ["", "0", "1,x", "1,,2", "-1"])
def test_sizes_are_positive_numbers(text):
    with pytest.raises(DFlashError, match="batch_sizes"):
        roundcost._sizes(text)


def test_the_command_prints_both_systems_and_writes_them(monkeypatch, capsys, tmp_path):
    questions = [type("Prompt", (), {"token_ids": (1, 2)})] * 4
    monkeypatch.setattr(roundcost, "load_prompts", lambda *args, **kwargs: questions)
    monkeypatch.setattr(roundcost, "count_rounds", lambda spec, questions, sizes: ROUNDS[spec.worker])
    monkeypatch.setattr(roundcost, "Console", lambda width: Console(width=width, color_system=None))
    out = tmp_path / "new" / "cost.json"
    roundcost.run_round_cost("target", "draft", tmp_path, "1,4", "", True, out)
    lines = capsys.readouterr().out.splitlines()
    cells = [re.findall(r"[\w.]+", line) for line in lines]
    assert ["1", "worker", "builtin", "10", "2", "1", "0"] in cells
    assert ["4", "all", "dflash", "21", "6", "3", "0"] in cells
    assert ["mm", "10", "5", "20", "7"] in cells
    written = json.loads(out.read_text())
    assert written["systems"]["dflash"]["4"]["rounds"] == 3
    assert written["environment"]["sglang"] == "0.5.23"
    with pytest.raises(DFlashError, match="asks for 8 prompts of 4"):
        roundcost.run_round_cost("target", "draft", tmp_path, "8", "", False, out)
