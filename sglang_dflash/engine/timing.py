"""Milliseconds per round, split by stage; off unless ``SGLANG_DFLASH_TIMINGS`` names a file.

The file holds JSON lines: one per decode round,
``{"bs": 8, "round": 31.2, "stages": {"draft": 4.1, ...}}``, written by tensor-parallel rank 0.
"""

import contextlib
import json
import time

import torch


class NoTimer:
    """Times nothing."""

    _context = contextlib.nullcontext()

    def stage(self, name: str):
        return self._context

    def finish_round(self, bs: int) -> None:
        pass


class HostTimer:
    """Wall clock of the calling thread: right where the device is the host."""

    def __init__(self, path: str):
        self._file = open(path, "a", buffering=1)
        self._stages: dict[str, float] = {}
        self._previous: float | None = None

    @contextlib.contextmanager
    def stage(self, name: str):
        start = self._now()
        yield
        self._stages[name] = self._stages.get(name, 0.0) + (self._now() - start) * 1e3

    def _now(self) -> float:
        return time.perf_counter()

    def finish_round(self, bs: int) -> None:
        """Write the round's line; ``round`` is the time since the last round's end (null for the first)."""
        now = self._now()
        period = None if self._previous is None else round((now - self._previous) * 1e3, 4)
        stages = {name: round(ms, 4) for name, ms in self._stages.items()}
        self._file.write(json.dumps({"bs": bs, "round": period, "stages": stages}) + "\n")
        self._stages.clear()
        self._previous = now


class SynchronisedTimer(HostTimer):
    """Waits for the device at every stage's edge: right per stage, and slower than an untimed round."""

    def _now(self) -> float:
        torch.accelerator.synchronize()
        return time.perf_counter()


def build_timer(path: str | None, device_type: str, rank: int):
    """The timer for this process: none without a path or off rank 0."""
    if not path or rank != 0:
        return NoTimer()
    return HostTimer(path) if device_type == "cpu" else SynchronisedTimer(path)
