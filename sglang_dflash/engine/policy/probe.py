"""Milliseconds of a round of every shape and some numbers of requests, measured at start."""

from collections.abc import Callable, Sequence
from statistics import median

from sglang_dflash.types import Shape

REQUESTS = (1, 2, 4, 8, 16, 32)
CONTEXT = 64  # tokens of every request that is played
TURNS = 5
LONG = 100.0  # ms: one round as long as this is enough
ENOUGH = 400.0  # ms: of rounds as long as this no larger batch is tried; what they cost goes on in a line


def probe(
    run: Callable[[Shape, int], float], shapes: Sequence[Shape], most: int, agree: Callable[[float], float]
) -> dict[Shape, list[tuple[int, float]]]:
    """Median ms of rounds of each shape, by number of requests up to ``most``.

    run: plays one round of a shape and a number of requests, and gives its ms. agree: rank 0's value, for all ranks
    must play the same rounds.
    """
    found: dict[Shape, list[tuple[int, float]]] = {shape: [] for shape in shapes}
    for shape in shapes:
        for bs in (bs for bs in REQUESTS if bs <= max(most, 1)):
            run(shape, bs)  # what is allocated or compiled once
            first = agree(run(shape, bs))
            turns = [first, *(agree(run(shape, bs)) for _ in range(TURNS - 1) if first < LONG)]
            found[shape].append((bs, median(turns)))
            if median(turns) > ENOUGH and len(found[shape]) > 1:
                break
    return found
