"""One value for every decode round, made when its tokens reach the host, and handed to whoever wants it."""

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from sglang_dflash.engine.observe.sinks import DebugLines, RoundFile, debugging
from sglang_dflash.engine.timing import HostTimer, Times, build_timer
from sglang_dflash.types import RoundRecord, Shape


class NoObserver:
    """Sees nothing, and costs nothing."""

    _context = contextlib.nullcontext()

    def stage(self, name: str):
        """Scope of one stage of the round."""
        return self._context

    def expect(self, tokens: float, ms: float) -> None:
        """What a policy foresees of the round that begins."""

    def finish_round(self, reqs: Sequence[Any], shape: Shape) -> None:
        """The round is launched."""

    def complete(self, correct_drafts: Sequence[int]) -> None:
        """The oldest round that was launched has its tokens on the host."""


class _Launched(NamedTuple):
    reqs: tuple[Any, ...]
    shape: Shape
    times: Callable[[], Times]
    expected: tuple[float, float] | None


class Observer:
    """Remembers rounds from their launch until SGLang has read their tokens: one at most is in between."""

    def __init__(self, timer: HostTimer, sinks: Sequence[Callable[[RoundRecord], None]]):
        self.stage = timer.stage
        self._timer, self._sinks = timer, tuple(sinks)
        self._launched: deque[_Launched] = deque()
        self._expected: tuple[float, float] | None = None

    def expect(self, tokens: float, ms: float) -> None:
        """What a policy foresees of the round that begins: tokens of all requests, milliseconds."""
        self._expected = tokens, ms

    def finish_round(self, reqs: Sequence[Any], shape: Shape) -> None:
        """``reqs`` are SGLang's requests of the round, in the order of its rows."""
        self._launched.append(_Launched(tuple(reqs), shape, self._timer.finish_round(), self._expected))

    def complete(self, correct_drafts: Sequence[int]) -> None:
        """correct_drafts [bs] of the oldest round, before SGLang gives the tokens to its requests.

        Rows of requests that ended while the round ran are dropped, as SGLang drops their tokens.
        """
        reqs, shape, times, expected = self._launched.popleft()
        stages, period = times()
        kept = tuple(
            count for req, count in zip(reqs, correct_drafts, strict=True) if not (req.finished() or req.is_retracted)
        )
        record = RoundRecord(len(reqs), shape, kept, stages, period, expected)
        for sink in self._sinks:
            sink(record)


def build_observer(
    device: torch.device, rank: int, timings: str | None, metrics: Callable[[RoundRecord], None] | None
) -> Observer | NoObserver:
    """The observer of this process: rank 0 alone has one, where somebody takes what it sees.

    timings: a file for JSON lines; metrics: takes rounds for Prometheus; a debugging log takes them, too.
    """
    sinks: list[Callable[[RoundRecord], None]] = []
    if timings:
        sinks.append(RoundFile(timings))
    if metrics is not None:
        sinks.append(metrics)
    if debugging():
        sinks.append(DebugLines())
    if rank != 0 or not sinks:
        return NoObserver()
    return Observer(build_timer(device, exact=bool(timings)), sinks)
