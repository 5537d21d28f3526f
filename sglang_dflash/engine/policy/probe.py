"""Milliseconds of a round of every shape and some numbers of requests, measured at start."""

from collections.abc import Callable, Sequence
from statistics import median

from sglang_dflash.types import Shape

REQUESTS = (1, 2, 4, 8, 16, 32)
CONTEXT = 64  # tokens of every request that is played
TURNS = 5
ENOUGH = 400.0  # ms: where every turn of rounds takes as long as this by shape, no larger batch is tried
LONG = 100.0  # ms: of rounds as long as this on average two turns are enough


def probe(
    run: Callable[[Shape, int], float], shapes: Sequence[Shape], most: int, agree: Callable[[float], float]
) -> dict[Shape, list[tuple[int, float]]]:
    """Median ms of rounds of each shape, by number of requests up to ``most``.

    Shapes take turns, so that a slow second of the machine makes none look dear beside the others.

    run: plays one round of a shape and a number of requests, and gives its ms. agree: rank 0's value, for all ranks
    must play the same rounds.
    """
    found: dict[Shape, list[tuple[int, float]]] = {shape: [] for shape in shapes}
    for bs in (bs for bs in REQUESTS if bs <= max(most, 1)):
        for shape in shapes:
            run(shape, bs)  # what is allocated or compiled once
        turns = [[agree(run(shape, bs)) for shape in shapes]]
        mean = sum(turns[0]) / len(shapes)
        turns += [[agree(run(shape, bs)) for shape in shapes] for _ in range((2 if mean > LONG else TURNS) - 1)]
        for shape, times in zip(shapes, zip(*turns, strict=True), strict=True):
            found[shape].append((bs, median(times)))
        if mean > ENOUGH and bs > 1:
            break
    return found
