"""Whatever way this process ends, no server outlives it (short of SIGKILL)."""

import atexit
import signal
import threading

_live: dict[int, object] = {}
_installed = False


def add(process) -> None:
    """Remember a running server; the first call installs the exit hooks."""
    global _installed
    _live[id(process)] = process
    if _installed:
        return
    _installed = True
    atexit.register(stop_all)
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            # Somebody else's handler stays; Ctrl-C is already an exception.
            if signal.getsignal(getattr(signal, name)) is signal.SIG_DFL:
                signal.signal(getattr(signal, name), _exit_on)


def discard(process) -> None:
    """Forget a server that has been stopped."""
    _live.pop(id(process), None)


def stop_all() -> None:
    """Stop every server that is still running."""
    for process in list(_live.values()):
        process.stop()


def _exit_on(number, frame):
    raise SystemExit(128 + number)


class hold_signals:
    """Context in which Ctrl-C, SIGTERM and SIGHUP wait, so that stopping a server cannot be interrupted."""

    _NAMES = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __enter__(self):
        self._old = None
        if threading.current_thread() is threading.main_thread():
            self._old = signal.pthread_sigmask(signal.SIG_BLOCK, self._NAMES)
        return self

    def __exit__(self, *exc):
        if self._old is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._old)
