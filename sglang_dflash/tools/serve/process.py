"""One server as a child process in a session of its own: start, wait, stop."""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import psutil

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.serve import cleanup
from sglang_dflash.tools.serve.client import Client
from sglang_dflash.tools.serve.log import PHASES, LogWatch, error_line, tail
from sglang_dflash.tools.serve.ports import free_port, release_port
from sglang_dflash.tools.serve.spec import ServerSpec, accelerator_present

START_TIMEOUT = 420.0  # seconds; a first start without byte code on two busy cores takes minutes
POLL = 0.2  # seconds between two looks at a server that starts
SETTLE = 0.5  # seconds in which a crash writes its traceback, and a parent notices the end of a child
WATCH = 3.0  # seconds between two looks at a server that is answering
# /health tells the server's state; by default it would run a token on the model, and take a second.
HEALTH = {"SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "false"}
SCHEDULER_TITLE = "sglang::scheduler"
GRACE = 4.0  # seconds between SIGTERM and SIGKILL

Progress = Callable[[int, str], None]


class ServerProcess:
    """Starts ``spec`` and owns it until ``stop``; a context manager.

    ``start`` returns at once and ``wait_ready`` blocks, so that several servers can start side by side.
    ``command`` replaces the spec's command line and ``launcher`` the way it is started (tests).
    """

    streams = True

    def __init__(
        self,
        spec: ServerSpec,
        log_dir: Path | None = None,
        ports: Iterable[int] | None = None,
        command: Callable[[int], list[str]] | None = None,
        launcher: Callable[[list[str], dict[str, str], Path], Any] | None = None,
    ):
        self.spec = spec
        self.port = free_port(ports)
        self.url = f"http://127.0.0.1:{self.port}"
        self._gpu = command is None and accelerator_present()
        self.command = command(self.port) if command else spec.command(self.port, gpu=self._gpu)
        folder = Path(log_dir) if log_dir else Path(tempfile.mkdtemp(prefix="sglang-dflash-"))
        folder.mkdir(parents=True, exist_ok=True)
        self.log_path = folder / f"{spec.key()}-{self.port}.log"
        self.peak_rss = 0  # bytes, largest seen by rss()
        self._watch = LogWatch(self.log_path)
        self._launcher = launcher or launch
        self._child: subprocess.Popen | None = None
        self._client: Client | None = None

    def __enter__(self) -> "ServerProcess":
        self.start()
        self.wait_ready()
        return self

    def __exit__(self, *exc) -> None:
        self.stop()

    @property
    def client(self) -> Client:
        """A client of this server, closed with it."""
        if self._client is None:
            self._client = Client(self.url)
        return self._client

    @property
    def pid(self) -> int:
        """Process id of the launcher, which is also the id of its process group."""
        return self._child.pid

    def alive(self) -> bool:
        """True while the launcher runs."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> "ServerProcess":
        """Launch the process; does not wait."""
        cleanup.add(self)
        environment = self.spec.environment() | HEALTH
        self._child = self._launcher(self.command, environment, self.log_path)
        return self

    def wait_ready(self, timeout: float = START_TIMEOUT, progress: Progress | None = None) -> "ServerProcess":
        """Block until the server answers; ``progress(percent, phase)`` is called while it starts.

        Raises:
            DFlashError: it died, crashed, or was not ready in ``timeout`` seconds; it is stopped by then.
        """
        deadline = time.monotonic() + timeout
        try:
            while not self.poll_ready(progress):
                if time.monotonic() > deadline:
                    raise DFlashError(
                        "server", f"{self.spec.worker} was not ready after {timeout:.0f} s", f"see {self.log_path}"
                    )
                time.sleep(POLL)
        except BaseException:
            self.stop()
            raise
        return self

    def poll_ready(self, progress: Progress | None = None) -> bool:
        """One look at a starting server: True once it answers; DFlashError where it has died."""
        self._watch.update()
        reached, phase = self._watch.phase()
        if progress is not None:
            progress(100 * reached // len(PHASES), phase)
        self.raise_if_dead()
        if not self.client.ready():
            return False
        if progress is not None:
            progress(100, "ready")
        return True

    def raise_if_dead(self) -> None:
        """DFlashError with the line that matters, where a process of the server has ended."""
        self._watch.update()
        killed = self._killed_child()
        if self.alive() and not killed and not self._watch.crashed():
            return
        # The traceback of a crash may still be on its way.
        time.sleep(SETTLE)
        self._watch.update()
        last_line = killed or tail(self.log_path, 1) or "no output"
        reason = error_line(self._watch.text) or last_line
        raise DFlashError("server", f"{self.spec.worker} stopped: {reason}", f"see {self.log_path}")

    def _killed_child(self) -> str | None:
        """A process of the tree that has ended while the launcher goes on: SGLang would wait for it for ever."""
        ended = self._ended_children()
        if ended:
            # A helper that ended as it should is gone once its parent has asked for its status.
            time.sleep(SETTLE)
            ended &= self._ended_children()
        return f"its process {min(ended)} was killed, perhaps for lack of memory" if ended else None

    def _ended_children(self) -> set[int]:
        return {process.pid for process in self.processes()[1:] if not _running(process)}

    def watched(self, work: Callable[[], Any]) -> Any:
        """The result of ``work``, which sends requests here; DFlashError as soon as the server has died."""
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(work)
            while not wait([job], timeout=WATCH).done:
                try:
                    self.raise_if_dead()
                except DFlashError:
                    # Ends the requests that would still wait for an answer.
                    self.stop()
                    raise
            return job.result()

    def processes(self) -> list[psutil.Process]:
        """The launcher and all of its descendants that are alive."""
        if self._child is None:
            return []
        try:
            launcher = psutil.Process(self._child.pid)
            return [launcher, *launcher.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def rss(self) -> int:
        """Resident bytes of the process tree now; the largest value is kept in ``peak_rss``."""
        total = 0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_info().rss
        self.peak_rss = max(self.peak_rss, total)
        return total

    def cpu_seconds(self, only_schedulers: bool = False) -> float:
        """Processor seconds used so far by the process tree, or by its scheduler processes, which run the models."""
        total = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if only_schedulers and not " ".join(process.cmdline()).startswith(SCHEDULER_TITLE):
                    continue
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def stop(self) -> None:
        """End every process of the server: SIGTERM, then SIGKILL. Idempotent."""
        if self._child is None:
            cleanup.discard(self)
            return
        with cleanup.hold_signals():
            tree = self.processes()
            _signal_group(self._child.pid, signal.SIGTERM)
            # A launcher that dies first would leave children that are still importing; one that outlives
            # them only sleeps before it reports a crash.
            _wait_gone([process for process in tree[1:] if not _is_tracker(process)])
            _signal_group(self._child.pid, signal.SIGKILL)
            for process in tree[1:]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._child.wait()
            _wait_gone(tree[1:])
            self._child = None
            cleanup.discard(self)
            release_port(self.port)
            if self._client is not None:
                self._client.close()
                self._client = None


def _is_tracker(process: psutil.Process) -> bool:
    """True for Python's resource tracker, which ignores SIGTERM and ends when its pipe closes."""
    try:
        return any("multiprocessing.resource_tracker" in part for part in process.cmdline())
    except psutil.Error:
        return False


def _wait_gone(processes: list[psutil.Process]) -> None:
    """Wait until none runs, at most GRACE seconds; whoever reaps them may take longer."""
    deadline = time.monotonic() + GRACE
    while any(map(_running, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)


def _running(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def launch(command: list[str], environment: dict[str, str], log_path: Path) -> subprocess.Popen:
    """Start ``command`` in a session of its own, its output in a fresh ``log_path``."""
    with log_path.open("wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def wait_all(servers: Iterable[ServerProcess], timeout: float = START_TIMEOUT, progress=None) -> None:
    """Wait for servers that start side by side; ``progress(server, percent, phase)``.

    Raises:
        DFlashError: one of them failed; all of them are stopped by then.
    """
    waiting = list(servers)
    every = list(waiting)
    deadline = time.monotonic() + timeout
    try:
        while waiting:
            for server in list(waiting):
                report = None if progress is None else (lambda p, text, s=server: progress(s, p, text))
                if server.poll_ready(report):
                    waiting.remove(server)
            if waiting and time.monotonic() > deadline:
                names = ", ".join(server.spec.worker for server in waiting)
                raise DFlashError(
                    "server", f"{names} not ready after {timeout:.0f} s", f"see {waiting[0].log_path.parent}"
                )
            time.sleep(POLL if waiting else 0)
    except BaseException:
        for server in every:
            server.stop()
        raise
