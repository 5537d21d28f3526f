"""How deep drafts are right: acceptance at each depth given the one before, for the server and for each request."""

from collections.abc import Sequence

from sglang_dflash.types import Shape

HOPE = 0.7  # acceptance at the first depth before anything was drafted: high enough to try
SERVER_KEEP, SERVER_WEIGHT = 0.99, 4.0
REQUEST_KEEP, REQUEST_WEIGHT = 0.95, 10.0
TREE_LIFT = 0.7  # of a chain's failures a tree is first thought to have


class Tally:
    """Decayed counts of how often a depth was tried, and how often it was right there."""

    def __init__(self, depths: int, keep: float):
        """keep: what is left of a depth's counts when it is tried again."""
        self._keep = keep
        self._tried, self._right = [0.0] * depths, [0.0] * depths

    def add(self, kept: int, drafted: int) -> None:
        """A path of up to ``drafted`` drafts was right for ``kept`` of them; what lies behind the first wrong one tells
        nothing."""
        for depth in range(min(kept + 1, drafted)):
            self._tried[depth] = self._tried[depth] * self._keep + 1
            self._right[depth] = self._right[depth] * self._keep + (depth < kept)

    def acceptance(self, expected: Sequence[float], weight: float) -> list[float]:
        """By depth, where ``expected`` counts as much as ``weight`` tries."""
        counts = zip(self._right, self._tried, expected, strict=True)
        return [(right + weight * before) / (tried + weight) for right, tried, before in counts]

    def pooled(self, first: float, weight: float) -> list[float]:
        """By depth, where each depth is expected to be as the one before it, the first as ``first``."""
        out: list[float] = []
        for right, tried in zip(self._right, self._tried, strict=True):
            first = (right + weight * first) / (tried + weight)
            out.append(first)
        return out


def kept_by_depth(acceptance: Sequence[float]) -> list[float]:
    """Acceptance by depth -> drafts that are expected to be kept of paths of 0, 1, 2, ... drafts."""
    out, survival = [0.0], 1.0
    for value in acceptance:
        survival *= value
        out.append(out[-1] + survival)
    return out


def statistics_of(shape: Shape) -> Shape | None:
    """Shapes with the same statistics have the same key: all chains share theirs, for they draft the same path."""
    return shape if shape.is_tree else None


class RequestSurvival:
    """One request's own tallies, of every kind of path it has had."""

    def __init__(self) -> None:
        self.tallies: dict[Shape | None, Tally] = {}


class Survival:
    """The server's tallies, which are what is expected of a new request."""

    def __init__(self, shapes: Sequence[Shape]):
        self._depths: dict[Shape | None, int] = {}
        for shape in shapes:
            key = statistics_of(shape)
            self._depths[key] = max(self._depths.get(key, 0), shape.path_len - 1)
        self._tallies = {key: Tally(depths, SERVER_KEEP) for key, depths in self._depths.items()}

    def add(self, shape: Shape, kept: int, request: RequestSurvival) -> None:
        """A round of ``shape`` kept ``kept`` drafts of a request."""
        key, drafted = statistics_of(shape), shape.path_len - 1
        self._tallies[key].add(kept, drafted)
        if key not in request.tallies:
            request.tallies[key] = Tally(self._depths[key], REQUEST_KEEP)
        request.tallies[key].add(kept, drafted)

    def of_server(self) -> dict[Shape | None, list[float]]:
        """Acceptance by depth of a request that nothing is known of, for every kind of path."""
        chain = self._tallies[None].pooled(HOPE, SERVER_WEIGHT)
        found: dict[Shape | None, list[float]] = {None: chain}
        for key, tally in self._tallies.items():
            if key is not None:
                depths = self._depths[key]
                lifted = [1 - TREE_LIFT * (1 - value) for value in chain[:depths]]
                lifted += lifted[-1:] * (depths - len(lifted))
                found[key] = tally.acceptance(lifted, SERVER_WEIGHT)
        return found

    def kept(self, requests: Sequence[RequestSurvival]) -> dict[Shape | None, list[list[float]]]:
        """Drafts that each request is expected to keep: by kind of path a list for each, by the path's depth."""
        out: dict[Shape | None, list[list[float]]] = {}
        for key, expected in self.of_server().items():
            fresh = kept_by_depth(expected)
            tallies = [request.tallies.get(key) for request in requests]
            out[key] = [
                fresh if tally is None else kept_by_depth(tally.acceptance(expected, REQUEST_WEIGHT))
                for tally in tallies
            ]
        return out
