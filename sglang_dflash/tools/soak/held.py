"""What a server holds: its slots by its own metrics, and its memory, file descriptors and threads."""

import contextlib
import statistics
import time
from collections.abc import Mapping
from typing import NamedTuple

import psutil

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.serve import ServerProcess

PATIENCE = 60.0  # seconds until a server has let go of what nobody waits for
# Of SGLang's metrics: free slots of each pool. The gauges of pools that a target lacks stay at zero.
SLOTS = {
    "sglang:kv_available_tokens": "KV",
    "sglang:swa_available_tokens": "sliding KV",
    "sglang:mamba_available_tokens": "states",
}
LOAD = ("num_running_reqs", "num_waiting_reqs", "num_used_tokens")


def free_slots(server: ServerProcess, prompt) -> dict[str, int]:
    """Free slots by pool while the radix cache is empty but for one small request, which makes the server count.

    Raises:
        DFlashError: something still runs, or is held by nobody.
    """
    _settle(server)
    server.client.generate(prompt, {"temperature": 0.0, "max_new_tokens": 1})
    metrics = server.client.metrics()
    return {name: int(metrics[key]) for key, name in SLOTS.items() if metrics.get(key)}


def lost_slots(before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    """One line for each pool whose free slots are others than before."""
    return [f"free {name}: {before[name]} -> {after.get(name)}" for name in before if before[name] != after.get(name)]


def _settle(server: ServerProcess) -> None:
    """Wait until nothing runs; then only the radix cache holds slots, and it is emptied."""
    server.client.flush_cache(timeout=PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while any((load := server.client.load())[name] for name in LOAD):  # published now and then
        if time.monotonic() > deadline:
            raise DFlashError("server", f"still holds {load}", "see its log")
        time.sleep(0.2)
    server.raise_if_dead()


class Footprint(NamedTuple):
    """Of a server's whole process tree."""

    at: float  # seconds since the start
    rss: int  # bytes
    files: int
    threads: int

    @classmethod
    def of(cls, server: ServerProcess, at: float) -> "Footprint":
        """The server's now."""
        files = threads = 0
        for process in server.processes():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                files += process.num_fds()
                threads += process.num_threads()
        return cls(at, server.rss(), files, threads)


def growth(footprints: list[Footprint]) -> Mapping[str, tuple[float, float]]:
    """(before, after) of each figure: medians of the third and the last fifth of the time."""
    end = footprints[-1].at
    before = [f for f in footprints if 0.4 * end <= f.at < 0.6 * end]
    after = [f for f in footprints if f.at >= 0.8 * end]
    return {
        name: (statistics.median(getattr(f, name) for f in before), statistics.median(getattr(f, name) for f in after))
        for name in ("rss", "files", "threads")
    }
