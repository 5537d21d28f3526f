"""Free TCP ports."""

import random
import socket
from collections.abc import Iterable
from pathlib import Path

from sglang_dflash.errors import DFlashError

LOWEST = 20000  # of the ports handed out; lower ones belong to well-known services
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_SPREAD = 1000  # SGLang derives further ports above a server's
_handed_out: set[int] = set()
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

    A port is handed out once per process, so that servers started together do not collide. Where the system
    leaves some, it lies below the ports given to connections: one of these could take it before the server listens.
    """
    for port in _candidates() if candidates is None else candidates:
        if port not in _handed_out and is_free(port):
            _handed_out.add(port)
            return port
    raise DFlashError("port", "none of the given ports is free", "stop what listens there, or give others")


def _candidates() -> list[int]:
    first = int(_EPHEMERAL.read_text().split()[0]) if _EPHEMERAL.exists() else 49152  # as IANA has it
    ports = range(LOWEST, max(first - _SPREAD, LOWEST + _SPREAD))
    return _random.sample(ports, len(ports))


def release_port(port: int) -> None:
    """Let the port be handed out again."""
    _handed_out.discard(port)
