"""Free TCP ports."""

import os
import random
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock, Timeout

from sglang_dflash.errors import DFlashError

LOWEST = 10000  # of the ports handed out; lower ones belong to well-known services
SGLANGS = range(22000, 30000)  # where SGLang looks for the ports of its process groups
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_SPREAD = 1000  # SGLang derives further ports above a server's
_handed_out: dict[int, FileLock] = {}
_random = random.SystemRandom()


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """True where a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(candidates: Iterable[int] | None = None) -> int:
    """A free port: the first free one of ``candidates``, or any.

    A port belongs to this process until ``release_port``: a lock file keeps others that choose one here from it
    while the server is not yet listening. For the same reason it lies neither among SGLang's own nor, where the
    system leaves others, among the ports given to connections.
    """
    for port in _candidates() if candidates is None else candidates:
        if port in _handed_out:
            continue
        lock = FileLock(_lock_folder() / str(port), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            continue
        if is_free(port):
            _handed_out[port] = lock
            return port
        lock.release()
    raise DFlashError("port", "none of the given ports is free", "stop what listens there, or give others")


def _candidates() -> list[int]:
    first = int(_EPHEMERAL.read_text().split()[0]) if _EPHEMERAL.exists() else 49152  # as IANA has it
    ports = [port for port in range(LOWEST, max(first - _SPREAD, LOWEST + _SPREAD)) if port not in SGLANGS]
    return _random.sample(ports, len(ports))


def release_port(port: int) -> None:
    """Let the port be handed out again."""
    lock = _handed_out.pop(port, None)
    if lock is not None:
        lock.release()


def _lock_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"sglang-dflash-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    return folder
