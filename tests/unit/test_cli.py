"""The console command: help without torch, one-line errors, commands that need no server."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sglang_dflash import __version__, cli
from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.bench import kernelbw, products, roundcost
from sglang_dflash.tools.serve import ServerProcess, ServerSpec

RUNNER = CliRunner()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["demo"],
        ["bench"],
        ["train"],
        ["train", "draft"],
        ["generate"],
        ["serve"],
        ["check"],
        ["models"],
        ["launch"],
    ],
)
def test_help_is_cheap(words):
    script = (
        "import sys; from sglang_dflash.cli import app\n"
        f"try: app({[*words, '--help']!r})\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'sglang', 'transformers'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_version():
    assert RUNNER.invoke(cli.app, ["version"]).output.strip() == __version__


def test_generate_streams_from_a_running_server(tmp_path):
    stub = Path(__file__).with_name("stub_server.py")
    make = ServerProcess(
        ServerSpec("t"), tmp_path, command=lambda port: [sys.executable, str(stub), str(port), "ok", "-"]
    )
    with make as server:
        assert RUNNER.invoke(cli.app, ["generate", "hi", "--url", server.url]).output == "abcd\n"


def test_serve_prints_the_command():
    done = RUNNER.invoke(cli.app, ["serve", "--dry-run", "--port", "31200", "--page-size", "16"])
    assert "--speculative-algorithm DFLASH" in done.output and done.output.strip().endswith("--page-size 16")
    done = RUNNER.invoke(cli.app, ["serve", "--dry-run", "--worker", "plain"])
    assert "DFLASH" not in done.output and "launch_server" in done.output


def test_serve_on_a_gpu_forces_nothing_unless_asked(monkeypatch):
    monkeypatch.setattr("sglang_dflash.tools.serve.spec.accelerator_present", lambda: True)
    usual, exact = (RUNNER.invoke(cli.app, ["serve", "--dry-run", *more]).output for more in ([], ["--exact"]))
    assert not any(flag in usual for flag in ("--dtype", "--attention-backend", "--mem-fraction-static"))
    assert "--dtype float32 --attention-backend triton" in exact and "--mem-fraction-static" not in exact


@pytest.mark.parametrize(
    "arguments, field",
    [
        (["bench", "--systems", "fast"], "systems"),
        (["bench", "--concurrency", "1,two"], "concurrency"),
        (["bench", "--prompts", "/nowhere"], "prompts"),
        (["bench", "--kinds", "add", "--per-kind", "3", "--concurrency", "1,4"], "concurrency"),
        (["bench", "equality", "--per-kind", "1", "--overlap", "off,maybe"], "overlap"),
        (["bench", "equality", "--max-tokens", "4096"], "prompts"),
        (["demo", "--prompts", "/nowhere"], "prompts"),
        (["serve", "--dry-run", "--worker", "x"], "worker"),
        (["generate", "hi", "--url", "http://127.0.0.1:9"], "server"),
    ],
)
def test_errors_are_one_line(monkeypatch, capsys, arguments, field):
    monkeypatch.setattr(sys, "argv", ["sglang-dflash", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"error: {field}: ")


@pytest.mark.parametrize("name", ["step", "products", "cost", "kernels", "equality"])
def test_a_measurement_is_a_command_with_options_of_its_own(name):
    shown = RUNNER.invoke(cli.app, ["bench", name, "--help"])
    assert shown.exit_code == 0 and f"bench {name} [OPTIONS]" in shown.output


def test_measurements_get_their_arguments(monkeypatch):
    seen = []
    monkeypatch.setattr(kernelbw, "run_kernel_bandwidth", seen.append)
    monkeypatch.setattr(products, "run_products", seen.append)
    assert RUNNER.invoke(cli.app, ["bench", "kernels", "--json"]).exit_code == 0
    assert RUNNER.invoke(cli.app, ["bench", "products", "--threads", "2"]).exit_code == 0
    assert seen == [True, 2]


def test_a_measurement_failure_passes_through(monkeypatch):
    def fail(*arguments):
        raise DFlashError("draft", "is bad", "fix it")

    monkeypatch.setattr(roundcost, "run_round_cost", fail)
    assert isinstance(RUNNER.invoke(cli.app, ["bench", "cost"]).exception, DFlashError)
