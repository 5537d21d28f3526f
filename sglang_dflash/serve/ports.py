"""Free TCP ports."""

import socket
from collections.abc import Iterable

from sglang_dflash.errors import DFlashError

_handed_out: set[int] = set()


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
    """A free port: the first free one of ``candidates``, or one that the system picks.

    A port is handed out once per process, so that servers started together do not collide.
    """
    if candidates is None:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            # SGLang derives further ports above this one.
            if port < 60000 and port not in _handed_out:
                _handed_out.add(port)
                return port
    for port in candidates:
        if port not in _handed_out and is_free(port):
            _handed_out.add(port)
            return port
    raise DFlashError("port", "none of the given ports is free", "stop what listens there, or give others")


def release_port(port: int) -> None:
    """Let the port be handed out again."""
    _handed_out.discard(port)
