"""When to try a shape that does not look best: only tries tell whether it still does not."""

from collections.abc import Sequence

from sglang_dflash.engine.policy.choice import Forecast
from sglang_dflash.types import Shape

SHARE = 0.01  # of all time that trying may lose
FIRST_WAIT, LONGEST_WAIT = 16, 1024  # rounds between two tries of a shape that does not pay
PURSE = 20.0  # rounds' worth of time that can be saved up


class Trials:
    """An account: rounds of the best shape pay ``SHARE`` of their time in, tries take out what they really lost.

    A try that turns out well costs nothing, so that another may follow at once; one that does not doubles the wait
    until the shape's next.
    """

    def __init__(self, shapes: Sequence[Shape]):
        """shapes: those that are tried."""
        self._shapes, self._saved, self._round = frozenset(shapes), 0.0, 0
        self._wait = dict.fromkeys(shapes, FIRST_WAIT)
        self._tried = dict.fromkeys(shapes, 0)

    def next(self, forecasts: Sequence[Forecast], best: Forecast) -> Forecast:
        """``best``, or one of the shapes that is to be tried in its place."""
        self._round += 1
        self._tried[best.shape] = self._round
        self._wait[best.shape] = FIRST_WAIT
        self._saved = min(self._saved + SHARE * best.ms, PURSE * best.ms)
        due = [
            each
            for each in forecasts
            if each.shape in self._shapes
            and self._round - self._tried[each.shape] >= self._wait[each.shape]
            and each.loss(best) <= self._saved
        ]
        if not due:
            return best
        # The most overdue for what it costs.
        found = max(due, key=lambda each: (self._round - self._tried[each.shape]) / max(each.loss(best), 1e-9))
        self._tried[found.shape] = self._round
        return found

    def outcome(self, tried: Forecast, best: Forecast, tokens: int) -> None:
        """A try emitted ``tokens``."""
        lost = tried._replace(tokens=float(tokens)).loss(best)
        self._saved -= lost
        if lost < 0:
            self._wait[tried.shape], self._tried[tried.shape] = FIRST_WAIT, self._round - FIRST_WAIT
        else:
            self._wait[tried.shape] = min(2 * self._wait[tried.shape], LONGEST_WAIT)
