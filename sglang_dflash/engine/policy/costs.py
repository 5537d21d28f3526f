"""What a round costs in milliseconds: probed at start for every shape, corrected by what rounds really take."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from sglang_dflash.types import Shape

COMMON_RATE, OWN_RATE = 0.2, 0.1
LARGEST_STEP = 2.0  # one round moves an average by no more than a round of this many times its cost would

Probed = Mapping[Shape, Sequence[tuple[int, float]]]  # (requests, ms), by number of requests


class Costs:
    """Interpolated between the probed numbers of requests, and linear beyond the last.

    A correction that all shapes share follows the machine and the contexts; one that each shape has for each probed
    size follows what is its own. So the shape that runs most does not look dear beside others only because the machine
    is slower than it was at start.
    """

    def __init__(self, probed: Probed):
        self._points = monotone(probed)
        self._common = 1.0
        self._own = {shape: [1.0] * len(points) for shape, points in self._points.items()}

    def ms(self, shape: Shape, bs: int) -> float:
        """Expected of a round of ``bs`` requests."""
        return self._probed(shape, bs) * self._common * self._own[shape][self._nearest(shape, bs)]

    def add(self, shape: Shape, bs: int, ms: float) -> None:
        """A round of ``bs`` requests took ``ms``."""
        ratio = ms / self.ms(shape, bs)
        ratio = min(max(ratio, 1 / LARGEST_STEP), LARGEST_STEP)
        own, nearest = self._own[shape], self._nearest(shape, bs)
        self._common *= ratio**COMMON_RATE
        own[nearest] *= ratio**OWN_RATE

    def _probed(self, shape: Shape, bs: int) -> float:
        points = self._points[shape]
        if len(points) == 1:
            return points[0][1] * max(1.0, bs / points[0][0])
        after = min(max(bisect_left(points, bs, key=lambda point: point[0]), 1), len(points) - 1)
        (low, low_ms), (high, high_ms) = points[after - 1], points[after]
        return low_ms + (high_ms - low_ms) * (bs - low) / (high - low)

    def _nearest(self, shape: Shape, bs: int) -> int:
        points = self._points[shape]
        return min(range(len(points)), key=lambda i: abs(points[i][0] - bs))


def monotone(probed: Probed) -> dict[Shape, list[tuple[int, float]]]:
    """More requests never cost less, nor do more nodes of shapes of one kind: what says otherwise is averaged away."""
    out = {}
    for shape, points in probed.items():
        sizes, times = zip(*sorted(points), strict=True)
        out[shape] = dict(zip(sizes, ascending(times), strict=True))
    for kinds in (("plain", "chain"), ("tree",), ("context",)):
        alike = sorted((shape for shape in out if shape.kind in kinds), key=lambda shape: shape.width)
        for bs in {bs for shape in alike for bs in out[shape]}:
            having = [shape for shape in alike if bs in out[shape]]
            for shape, ms in zip(having, ascending([out[shape][bs] for shape in having]), strict=True):
                out[shape][bs] = ms
    return {shape: sorted(times.items()) for shape, times in out.items()}


def ascending(values: Sequence[float]) -> list[float]:
    """The nearest sequence that never falls (least squares: neighbours that fall are pooled)."""
    pools: list[tuple[float, int]] = []
    for value in values:
        pools.append((value, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (one, n), (other, m) = pools[-2:]
            pools[-2:] = [((one * n + other * m) / (n + m), n + m)]
    return [mean for mean, count in pools for _ in range(count)]
