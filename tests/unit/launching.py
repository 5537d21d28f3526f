"""Drives ``launch_driver``: launch commands through SGLang's own parser, in one process for all test modules."""

import atexit
import json
import os
import subprocess
import sys
from functools import cache
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
    driver = _driver()
    driver.stdin.write(json.dumps(asked) + "\n")
    driver.stdin.flush()
    answer = json.loads(driver.stdout.readline() or "null")
    assert answer is not None, "the driver failed (see its output above)"
    return [Outcome(**outcome) for outcome in answer]


@cache
def _driver() -> subprocess.Popen:
    """The process that answers; it ends with this one."""
    driver = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("launch_driver.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    atexit.register(driver.wait)
    atexit.register(driver.stdin.close)  # first: the last registered runs first
    return driver
