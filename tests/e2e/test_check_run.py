"""``sglang-dflash check --run`` on real servers: a sound pair, and a config that is wrong."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from sglang_dflash.checkpoints.checks.case import Plan
from sglang_dflash.tools.doctor.check import check, served_flags
from sglang_dflash.tools.doctor.live.run import run
from sglang_dflash.tools.doctor.machine import this_machine
from sglang_dflash.tools.serve import ServerProcess


@pytest.fixture
def verdict_of(launch):
    """(target, draft) -> verdict of a served run."""

    def verdict(target: str, draft: str):
        machine = this_machine()
        report = check(target, draft, Plan(dtype="float32"), machine)

        def make(spec, log_dir):
            return ServerProcess(spec, log_dir, launcher=launch)

        return run(report.reading, served_flags(report.advice, machine), Console(), make)

    return verdict


def test_the_pair_is_served_as_the_reference_drafts(pair, verdict_of):
    verdict = verdict_of(pair.target, pair.draft)
    assert verdict.wired_right, verdict.summary
    # The same rounds over the same answers: nothing is left to tolerance.
    assert verdict.served.rounds == verdict.reference.rounds
    assert verdict.agreement == 1.0


def test_a_wrong_flag_is_named(pair, verdict_of, tmp_path):
    for path in Path(pair.draft).iterdir():
        if path.name != "config.json":
            (tmp_path / path.name).symlink_to(path)
    raw = json.loads((Path(pair.draft) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {"is_causal": True}))
    verdict = verdict_of(pair.target, str(tmp_path))
    assert verdict.served_as_reference, verdict.summary
    assert not verdict.wired_right and "is_causal false" in verdict.summary
