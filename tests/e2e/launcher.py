"""Starts a test's servers: as forks of one process that has SGLang imported, or the ordinary way."""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from sglang_dflash.tools.serve.log import PHASES
from sglang_dflash.tools.serve.process import HEALTH, launch

# Read while SGLang is imported or at the start of a process, so a fork cannot change them.
EARLY = ("SGLANG_", "OMP_", "MKL_", "TRITON_", "LD_", "TORCH")
OURS = "SGLANG_DFLASH_"  # read when the server starts, but for the platform
HUNG = 150.0  # seconds after which a server that has not started writes into its log where it stands

DOUBLES = Path(__file__).parents[1] / "doubles"


def path_to_doubles() -> str:
    """PYTHONPATH of a server that finds the test doubles."""
    return os.pathsep.join(filter(None, (str(DOUBLES), os.environ.get("PYTHONPATH"))))


class ForkLauncher:
    """Launches servers for ``ServerProcess``; its process starts with the first of them."""

    def __init__(self):
        self._zygote: subprocess.Popen | None = None
        self._lock = threading.Lock()

    def launch(self, command: list[str], environment: dict[str, str], log_path: Path):
        """A started server process with ``pid``, ``poll`` and ``wait``."""
        if not _forkable(command, environment):
            return launch(command, environment, log_path)
        log_path.write_bytes(b"")
        # A first request of SGLang's own, which it waits a second to send, tells a test nothing.
        argv = ["launch_server.py", *command[3:], "--skip-server-warmup"]
        server = ForkedServer(self, self.ask({"argv": argv, "env": environment, "log": str(log_path)})["pid"])
        watch = threading.Timer(HUNG, server.explain, (log_path,))
        watch.daemon = True
        watch.start()
        return server

    def ask(self, request: dict) -> dict:
        """The process's answer to one request."""
        with self._lock:
            if self._zygote is None:
                self._zygote = _start()
            self._zygote.stdin.write(json.dumps(request) + "\n")
            self._zygote.stdin.flush()
            return json.loads(self._zygote.stdout.readline())

    @property
    def running(self) -> bool:
        """True while there is a process to ask."""
        return self._zygote is not None

    def close(self) -> None:
        """End it, and every server it still has."""
        if self._zygote is not None:
            self._zygote.stdin.close()
            self._zygote.wait()
            self._zygote = None


class ForkedServer:
    """What ``ServerProcess`` needs of a child that is another process's."""

    def __init__(self, launcher: ForkLauncher, pid: int):
        self._launcher = launcher
        self.pid = pid

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._launcher.ask({"poll": self.pid, "block": False})["rc"]

    def wait(self) -> int:
        """The exit status, once it has ended."""
        return self._launcher.ask({"poll": self.pid, "block": True})["rc"]

    def explain(self, log_path: Path) -> None:
        """Have every process of a server that has not started yet write its stacks into the log."""
        if self._launcher.running and self.poll() is None and PHASES[-1][0] not in log_path.read_text(errors="replace"):
            os.killpg(self.pid, signal.SIGUSR2)


def _forkable(command: list[str], environment: dict[str, str]) -> bool:
    def early(name):
        return name == OURS + "PLATFORM" or (name.startswith(EARLY) and not name.startswith(OURS))

    changed = {name for name in {*os.environ, *environment} if os.environ.get(name) != environment.get(name)}
    changed -= {"OMP_NUM_THREADS"} if environment.get("OMP_NUM_THREADS") == "1" else set()
    changed -= {"TRITON_INTERPRET", *HEALTH}
    return command[1:3] == ["-m", "sglang.launch_server"] and not any(early(name) for name in changed)


def _start() -> subprocess.Popen:
    environment = dict(os.environ)
    for name in ("TRITON_INTERPRET", "PYTHONDONTWRITEBYTECODE"):  # as ServerSpec.environment
        environment.pop(name, None)
    environment |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    zygote = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("zygote.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        start_new_session=True,
    )
    line = zygote.stdout.readline()
    assert line, "the process that forks test servers did not start (see its output above)"
    atexit.register(lambda: zygote.stdin.closed or zygote.stdin.close())
    return zygote
