"""Times plain decode steps inside the scheduler process, where ``SGLANG_DFLASH_TIMINGS`` names a file.

One JSON line per step: ``step_ms`` from one decode forward's begin to the next one's, ``forward_ms`` of it in
the model (head included), and ``step_cpu_ms``, ``forward_cpu_ms``, the scheduler thread's own processor time.
Only steps that follow a decode step of the same batch size count.
"""

import json
import time
from typing import NamedTuple

from torch import nn

LINES_AT_ONCE = 50  # the file is written rarely, so that writing is not what is measured


class Moment(NamedTuple):
    """Wall and processor seconds at one point of the scheduler thread."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> "Moment":
        return cls(time.perf_counter(), time.thread_time())


class StepClock:
    """Stands in for a model's ``forward`` and appends its times to ``path``."""

    def __init__(self, forward, path: str):
        self._forward = forward
        self._path = path
        self._lines: list[str] = []
        self._last: tuple[Moment, Moment, int] | None = None  # begin, end, batch size of the step before

    def __call__(self, input_ids, positions, forward_batch, *args, **kwargs):
        begin = Moment.now()
        out = self._forward(input_ids, positions, forward_batch, *args, **kwargs)
        end = Moment.now()
        if not forward_batch.forward_mode.is_decode():
            self._last = None
            self._write()
            return out
        size = input_ids.shape[0]
        if self._last is not None and self._last[2] == size:
            self._note(begin, *self._last)
        self._last = (begin, end, size)
        return out

    def _note(self, now: Moment, begin: Moment, end: Moment, size: int) -> None:
        row = {
            "requests": size,
            "step_ms": 1e3 * (now.wall - begin.wall),
            "forward_ms": 1e3 * (end.wall - begin.wall),
            "step_cpu_ms": 1e3 * (now.cpu - begin.cpu),
            "forward_cpu_ms": 1e3 * (end.cpu - begin.cpu),
        }
        self._lines.append(json.dumps(row))
        if len(self._lines) >= LINES_AT_ONCE:
            self._write()

    def _write(self) -> None:
        if self._lines:
            with open(self._path, "a") as file:
                file.write("\n".join(self._lines) + "\n")
            self._lines.clear()


def install(model: nn.Module, path: str) -> None:
    """Time ``model``'s forward passes into ``path``."""
    model.forward = StepClock(model.forward, path)
