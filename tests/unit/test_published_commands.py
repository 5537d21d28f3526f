"""Published launch commands pass SGLang's own parser with the plug-in loaded, and set what they say."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from launching import launch
from published_commands import COMMANDS

from sglang_dflash.plugin.arguments import RENAMED, SUCCESSORS

LAUNCH = Path(__file__).parents[2] / "launch"
CONFLICT = "--speculative-dflash-draft-window-size 4096 --speculative-draft-window-size 2048"
AGREEMENT = "--speculative-draft-window-size 4096 --speculative-dflash-draft-window-size 4096"
SCRIPTS = {
    "tiny-cpu.sh": {"speculative_algorithm": "DFLASH"},
    "qwen3-8b.sh": {"speculative_algorithm": "DFLASH", "speculative_num_draft_tokens": 16},
}


def dry_run(script: str, *arguments: str) -> list[str]:
    environment = os.environ | {"DRY_RUN": "1"}
    line = subprocess.run(
        ["bash", str(LAUNCH / script), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    words = shlex.split(line)
    return words[words.index("sglang.launch_server") + 1 :]


@pytest.fixture(scope="module")
def outcomes():
    """Every command of this module, parsed in one process."""
    base = "--model-path x --speculative-algorithm DFLASH "
    cases = {name: (published.flags.split(), published.environment) for name, published in COMMANDS.items()}
    cases |= {text: ((base + text).split(), {}) for text in (CONFLICT, AGREEMENT, "--mamba-scheduler-strategy x")}
    cases |= {script: (dry_run(script, "--port", "12345"), {}) for script in SCRIPTS}
    return dict(zip(cases, launch(list(cases.values()), resolve=False), strict=True))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_published_command_is_accepted(outcomes, name):
    outcome = outcomes[name]
    assert outcome.error is None
    for field, value in COMMANDS[name].fields.items():
        assert outcome.fields[field] == value, field


@pytest.mark.parametrize("name", COMMANDS)
def test_every_old_spelling_is_noted_in_one_line(outcomes, name):
    words = COMMANDS[name].flags.split()
    old = [flag.old for flag in RENAMED if flag.old in words]
    old += [option for (option, removed) in SUCCESSORS if removed in words]
    assert len(outcomes[name].log) == len(old)
    for spelling in old:
        assert sum(spelling in line for line in outcomes[name].log) == 1


def test_old_and_new_spelling_must_agree(outcomes):
    assert outcomes[AGREEMENT].fields["speculative_draft_window_size"] == 4096
    error = outcomes[CONFLICT].error
    assert "--speculative-dflash-draft-window-size: is 4096" in error and "2048" in error and "\n" not in error


def test_an_unknown_value_of_an_old_spelling_is_refused(outcomes):
    assert "argument --mamba-scheduler-strategy: invalid choice: 'x'" in outcomes["--mamba-scheduler-strategy x"].error


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_launch_script_prints_a_valid_command(outcomes, script):
    outcome = outcomes[script]
    assert outcome.error is None
    for field, value in (SCRIPTS[script] | {"port": 12345}).items():
        assert outcome.fields[field] == value
