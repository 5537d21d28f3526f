"""Drives ``launch_driver``: many launch commands through SGLang's own parser, in one process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple


class Outcome(NamedTuple):
    """What became of one command."""

    fields: dict | None
    error: str | None
    log: list[str]


def environment() -> dict[str, str]:
    """This process's environment without SGLang's switches, on the CPU platform, off the network."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SGLANG_", "PYTHONDONT"))}
    return kept | {"SGLANG_DFLASH_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1"}


def launch(cases: list[tuple[list[str], dict[str, str]]], *, resolve: bool) -> list[Outcome]:
    """Outcomes of (argv, environment) cases, with the installed plug-in."""
    asked = [{"argv": argv, "environment": env, "resolve": resolve} for argv, env in cases]
    driver = Path(__file__).with_name("launch_driver.py")
    process = subprocess.run(
        [sys.executable, str(driver)],
        input=json.dumps(asked),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    return [Outcome(**outcome) for outcome in json.loads(process.stdout.strip().splitlines()[-1])]
