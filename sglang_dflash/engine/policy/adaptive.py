"""The shape that pays best for the batch at hand, by what rounds cost and what they have kept so far.

Everything it reads is on the host already: what rounds kept comes with SGLang's own results, under overlap scheduling
a round late.
"""

import logging
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sglang_dflash.engine.policy.choice import Forecast, best, forecast
from sglang_dflash.engine.policy.costs import Costs
from sglang_dflash.engine.policy.policy import Fixed
from sglang_dflash.engine.policy.report import Report
from sglang_dflash.engine.policy.survival import RequestSurvival, Survival, statistics_of
from sglang_dflash.engine.policy.trials import Trials
from sglang_dflash.types import Shape

logger = logging.getLogger(__name__)

ROUNDS_PER_TABLE = 500


class Chosen(NamedTuple):
    """A round that runs, or whose outcome the host does not know yet."""

    forecast: Forecast
    best: Forecast  # what it was tried instead of, or itself
    requests: list[RequestSurvival]
    start: float


class Adaptive(Fixed):
    """See the module. One per rank; ``agree`` makes rank 0's choice everybody's."""

    def __init__(
        self,
        shapes: Sequence[Shape],
        costs: Costs,
        agree: Callable[[int], int],
        expect: Callable[[float, float], None] = lambda tokens, ms: None,
        contexts: Callable[[Sequence[Any], int], list[list[float]]] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        """expect: is told tokens and milliseconds that are expected of every round.

        contexts: (requests, count) -> how many of the first 0, 1, ... count tokens of each one's continuation will be
        kept; None where nothing is looked up.
        """
        self._shapes, self._costs, self._agree, self._expect, self._clock = tuple(shapes), costs, agree, expect, clock
        self._contexts, self._longest = contexts, max(shape.path_len for shape in shapes) - 1
        # What the context says is told without a try.
        tried = [shape for shape in shapes if shape.kind != "context"]
        self._survival, self._trials = Survival(tried), Trials(tried)
        self._requests: weakref.WeakKeyDictionary[Any, RequestSurvival] = weakref.WeakKeyDictionary()
        self._running: Chosen | None = None
        self._unheard: deque[Chosen] = deque()
        self.report = Report(shapes)

    def choose(self, batch) -> Shape:
        """The shape of the next round, for SGLang's ``batch`` that decodes."""
        now = self._clock()
        requests = [self._request(req) for req in batch.reqs]
        self._took(requests, now)
        forecasts = forecast(self._shapes, len(requests), self._kept(batch.reqs, requests), self._costs.ms)
        first = best(forecasts)
        chosen = forecasts[self._agree(forecasts.index(self._trials.next(forecasts, first)))]
        self._running = Chosen(chosen, first, requests, now)
        self._unheard.append(self._running)
        self._expect(chosen.tokens, chosen.ms)
        return chosen.shape

    def _kept(self, reqs, requests: Sequence[RequestSurvival]) -> Callable[[Shape], float]:
        """Drafts that rounds of a shape are expected to keep, all requests together."""
        drafts = self._survival.kept(requests)
        if self._contexts is None:
            return lambda shape: sum(kept[shape.path_len - 1] for kept in drafts[statistics_of(shape)])
        contexts = self._contexts(reqs, self._longest)

        def kept(shape: Shape) -> float:
            depth = shape.path_len - 1
            if not shape.drafts:
                return sum(context[depth] for context in contexts)
            # The better of both is proposed.
            both = zip(drafts[statistics_of(shape)], contexts, strict=True)
            return sum(max(draft[depth], context[depth]) for draft, context in both)

        return kept

    def interrupted(self) -> None:
        """The running round's end is not seen."""
        self._running = None

    def emitted(self, correct_drafts: Sequence[int]) -> None:
        """What the oldest round not heard of yet kept."""
        chosen = self._unheard.popleft()
        shape = chosen.forecast.shape
        if shape.kind != "context":
            for request, kept in zip(chosen.requests, correct_drafts, strict=True):
                self._survival.add(shape, kept, request)
        tokens = len(correct_drafts) + sum(correct_drafts)
        if chosen.forecast is not chosen.best:
            self._trials.outcome(chosen.forecast, chosen.best, tokens)
        self.report.emitted(shape, tokens, chosen.forecast)
        if logger.isEnabledFor(logging.DEBUG) and self.report.rounds % ROUNDS_PER_TABLE == 0:
            logger.debug("sglang-dflash: shapes so far\n%s", self.report.table())

    def _request(self, req) -> RequestSurvival:
        found = self._requests.get(req)
        if found is None:
            found = self._requests[req] = RequestSurvival()
        return found

    def _took(self, requests: list[RequestSurvival], now: float) -> None:
        """The round before has ended: it took as long as until now, unless the server had nothing to do meanwhile."""
        before, self._running = self._running, None
        if before is None or not any(request in before.requests for request in requests):
            return
        ms, shape = (now - before.start) * 1e3, before.forecast.shape
        self._costs.add(shape, len(before.requests), ms)
        self.report.took(shape, ms, before.forecast)
