"""How likely the next token of a match is right, by the match's length; learned from what was emitted.

With every right token the match is one longer, so a whole continuation is told by the same numbers.
"""

import math
from collections.abc import Sequence

from sglang_dflash.engine.lookup.index import LONGEST, Match

# Trials that the shared numbers weigh beside a request's own, and the guess beside shared ones.
_PRIOR = 6.0
# Shared counts are halved here, so that they follow the traffic.
_MOST = 4096.0


class SharedSurvival:
    """Of all requests, for every match length. Starts from length / (length + 2)."""

    def __init__(self) -> None:
        self._rights = [_PRIOR * length / (length + 2) for length in range(LONGEST + 1)]
        self._trials = [_PRIOR] * (LONGEST + 1)

    def chance(self, length: int) -> float:
        """That the next token is right."""
        return self._rights[length] / self._trials[length]

    def add(self, length: int, right: bool) -> None:
        """One token was seen."""
        self._rights[length] += right
        self._trials[length] += 1.0
        if self._trials[length] > _MOST:
            self._rights[length] /= 2
            self._trials[length] /= 2


class RequestSurvival:
    """Of one request, whose own trials count beside the shared ones: some texts copy, others only look alike."""

    def __init__(self, shared: SharedSurvival):
        self._shared = shared
        # By powers of two of the length: a request has few trials.
        self._rights, self._trials = [0.0] * LONGEST.bit_length(), [0.0] * LONGEST.bit_length()

    def log_chances(self, length: int, count: int) -> list[float]:
        """Of ``count`` tokens behind a match of ``length``, each given those before it; natural logarithms."""
        distinct = [self._log_chance(n) for n in range(length, min(LONGEST, length + count - 1) + 1)]
        return distinct + distinct[-1:] * (count - len(distinct))

    def learn(self, tokens: Sequence[int], start: int, match: Match) -> None:
        """``match`` was found when the context had ``start`` of ``tokens``."""
        length, source = match.length, match.end
        for place in range(start, len(tokens)):
            right = tokens[place] == tokens[source]
            self._shared.add(length, right)
            self._rights[length.bit_length() - 1] += right
            self._trials[length.bit_length() - 1] += 1.0
            if not right:
                return
            length, source = min(length + 1, LONGEST), source + 1

    def _log_chance(self, length: int) -> float:
        group = length.bit_length() - 1
        rights = self._rights[group] + _PRIOR * self._shared.chance(length)
        # A chance of 1 would make a continuation as good as certain to its end.
        return math.log(min(0.999, rights / (self._trials[group] + _PRIOR)))
