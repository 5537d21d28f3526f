"""Under another version of SGLang, only servers that ask for DFLASH notice that the plug-in is installed."""

import subprocess
import sys

import pytest
from launching import environment

from sglang_dflash.host.contract import SGLANG_VERSION
from sglang_dflash.plugin.unsupported import asks_for_dflash

LINE = (
    "sglang: version 0.5.22 is installed, this plug-in is written for "
    f"{SGLANG_VERSION} (pip install sglang=={SGLANG_VERSION})"
)
LOAD = """
import importlib.metadata, sys
installed = importlib.metadata.version
importlib.metadata.version = lambda name: "0.5.22" if name == "sglang" else installed(name)
GONE
from sglang.srt.plugins import load_plugins
load_plugins()
"""
# What another version may have instead.
GONE = """
sys.modules["sglang.srt.arg_groups.resolution_hooks"] = None
sys.modules["sglang.srt.speculative.spec_info"] = None
"""
ALGORITHMS = """
from types import SimpleNamespace
from sglang.srt.speculative.spec_info import SpeculativeAlgorithm
from sglang.srt.arg_groups import resolution_hooks
from sglang.srt.platforms import current_platform

def outcome(call, *arguments):
    try:
        return call(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

def handle_speculative_decoding(server_args):
    print("resolved", server_args.speculative_algorithm)

SpeculativeAlgorithm.get_platform_worker_cls = lambda self: self.name
print(SpeculativeAlgorithm.EAGLE.create_worker(SimpleNamespace(_resolution=None)))
print(outcome(SpeculativeAlgorithm.DFLASH.create_worker, None))
for name in ("EAGLE", None, "DFLASH"):
    args = SimpleNamespace(speculative_algorithm=name)
    print(outcome(resolution_hooks.run_hook, handle_speculative_decoding, args))
print(current_platform.device_name)
"""


def run(code: str, *argv: str, gone: str = "", **variables: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in environment().items() if name != "SGLANG_DFLASH_PLATFORM"}
    return subprocess.run(
        [sys.executable, "-c", LOAD.replace("GONE", gone) + code, *argv],
        env=kept | variables,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize(
    ("argv", "asks"),
    [
        (["--model-path", "m"], False),
        (["--speculative-algorithm", "EAGLE", "--served-model-name", "DFLASH"], False),
        (["--speculative-algorithm", "DFLASH"], True),
        (["--speculative-algo=dflash", "--model-path", "m"], True),
        (["--speculative-algorithm"], False),
        ([], False),
    ],
)
def test_a_command_line_says_whether_it_asks(argv, asks):
    assert asks_for_dflash(argv) is asks


def test_servers_without_dflash_go_on_and_others_get_the_line():
    done = run(ALGORITHMS)
    assert done.returncode == 0, done.stderr
    eagle, dflash, *resolved, platform = done.stdout.splitlines()
    assert eagle == "EAGLE" and dflash == f"DFlashError: {LINE}"
    assert resolved == ["resolved EAGLE", "None", "resolved None", "None", f"DFlashError: {LINE}"]
    assert platform != "sglang_dflash_cpu"
    warnings = [line for line in done.stderr.splitlines() if "not active" in line]
    assert warnings == [f"sglang-dflash is not active, and a server with DFLASH does not start: {LINE}"]
    assert [line for line in done.stderr.splitlines() if line.startswith("error:")] == [f"error: sglang-dflash: {LINE}"]


def test_a_command_line_with_dflash_ends_at_once():
    done = run("print('serving')", "--speculative-algorithm", "DFLASH")
    assert done.returncode == 2 and "serving" not in done.stdout
    assert done.stderr.splitlines()[-1] == f"error: sglang-dflash: {LINE}"


def test_the_platform_asked_for_by_name_ends_at_once():
    done = run(
        "from sglang.srt.platforms import current_platform; current_platform.device_name",
        **{"SGLANG_DFLASH_PLATFORM": "cpu"},
    )
    assert done.returncode == 2 and done.stderr.splitlines()[-1] == f"error: sglang-dflash: {LINE}"


def test_names_that_moved_are_no_trouble_of_other_servers():
    done = run("print('serving')", gone=GONE)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "serving", done.stderr
    assert f"a server with DFLASH would run on SGLang's own worker: {LINE}" in done.stderr
    done = run("print('serving')", "--speculative-algorithm", "DFLASH", gone=GONE)
    assert done.returncode == 2 and done.stderr.splitlines()[-1] == f"error: sglang-dflash: {LINE}"
