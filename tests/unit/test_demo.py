"""The demo's flow and its clean-up, on stub servers."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

SCRIPT = Path(__file__).with_name("demo_on_stubs.py")
WORKERS = ("plain", "builtin", "dflash")


def launch(tmp_path, repeats):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(tmp_path), str(repeats)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def children(tmp_path):
    files = [tmp_path / f"child-{worker}" for worker in WORKERS]
    return [int(file.read_text()) for file in files if file.exists() and file.read_text()]


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_whole_tour(tmp_path):
    demo = launch(tmp_path, 1)
    text, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, text
    assert "identical, token for token" in text and "Every server is stopped" in text
    assert "speed-up" in text and "accept length" in text and "kept draft position" in text
    assert len(children(tmp_path)) == 3 and not any(map(alive, children(tmp_path)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(tmp_path, number):
    demo = launch(tmp_path, 10**6)
    try:
        deadline = time.monotonic() + 60
        while len(children(tmp_path)) < 3:
            assert demo.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        pids = children(tmp_path)
        assert all(map(alive, pids))
        demo.send_signal(number)
        demo.communicate(timeout=60)
    finally:
        demo.kill()
    assert demo.returncode != 0
    assert not any(map(alive, pids))
