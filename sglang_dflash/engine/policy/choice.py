"""The choice itself: tokens per millisecond, on plain numbers.

Argmax over shapes of (requests + sum of survival) / (cost of draft and verify), as DFlash servers' schedulers have it
for one width per batch (arXiv 2606.01813 does it for one tree).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from sglang_dflash.types import Shape


class Forecast(NamedTuple):
    """What a round of one shape is expected to bring for a batch."""

    shape: Shape
    tokens: float  # emitted, all requests together
    ms: float

    @property
    def rate(self) -> float:
        """Tokens per millisecond."""
        return self.tokens / self.ms

    def loss(self, best: "Forecast") -> float:
        """Milliseconds lost by this round instead of as many tokens' worth of ``best``."""
        return self.ms - self.tokens / best.rate


def forecast(
    shapes: Sequence[Shape], bs: int, kept: Callable[[Shape], float], ms: Callable[[Shape, int], float]
) -> list[Forecast]:
    """One per shape, in their order; kept: drafts that a round of the shape keeps, all requests together."""
    return [Forecast(shape, bs + kept(shape), ms(shape, bs)) for shape in shapes]


def best(forecasts: Sequence[Forecast]) -> Forecast:
    """The largest rate; of equals the first."""
    return max(forecasts, key=lambda each: each.rate)
