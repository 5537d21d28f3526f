"""How long the stages of a round take, each measured in one place; off unless somebody observes rounds."""

import contextlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch


class Times(NamedTuple):
    """Of one round, in milliseconds."""

    stages: dict[str, float]  # by name, in order
    period: float | None  # since the end of the round before; None for the first


class HostTimer:
    """Wall clock of the calling thread: right where the device is the host."""

    def __init__(self):
        self._stages: dict[str, float] = {}
        self._previous: float | None = None

    @contextlib.contextmanager
    def stage(self, name: str):
        """Of the round that runs; a name may come again."""
        start = self._now()
        yield
        self._stages[name] = self._stages.get(name, 0.0) + (self._now() - start) * 1e3

    def _now(self) -> float:
        return time.perf_counter()

    def finish_round(self) -> Callable[[], Times]:
        """What gives the round's times, to be called once its tokens are on the host."""
        stages, self._stages = self._stages, {}
        times = Times(stages, self._period())
        return lambda: times

    def _period(self) -> float | None:
        now = self._now()
        period = None if self._previous is None else (now - self._previous) * 1e3
        self._previous = now
        return period


class SynchronisedTimer(HostTimer):
    """Waits for the device at every stage's edge: right per stage, and slower than an untimed round."""

    def _now(self) -> float:
        torch.accelerator.synchronize()
        return time.perf_counter()


class EventTimer(HostTimer):
    """Events of the device at every stage's edge, read when the round's tokens are on the host: nothing waits."""

    def __init__(self, new_event: Callable[[], Any]):
        """new_event: makes one that keeps its time."""
        super().__init__()
        self._new_event = new_event
        self._edges: list[tuple[str, Any, Any]] = []

    @contextlib.contextmanager
    def stage(self, name: str):
        """Of the round that runs; a name may come again."""
        start = self._edge()
        yield
        self._edges.append((name, start, self._edge()))

    def _edge(self):
        event = self._new_event()
        event.record()
        return event

    def finish_round(self) -> Callable[[], Times]:
        """What gives the round's times, to be called once its tokens are on the host."""
        edges, self._edges = self._edges, []
        period = self._period()

        def read() -> Times:
            stages: dict[str, float] = {}
            for name, start, end in edges:
                stages[name] = stages.get(name, 0.0) + start.elapsed_time(end)
            return Times(stages, period)

        return read


def build_timer(device: torch.device, exact: bool) -> HostTimer:
    """The timer for ``device``. exact: the period, too, is that of rounds that have ended on the device."""
    if device.type == "cpu":
        return HostTimer()
    return SynchronisedTimer() if exact else EventTimer(lambda: torch.Event(device=device, enable_timing=True))
