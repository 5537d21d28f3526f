"""Answers of a hundred tokens and more that are cheap to learn: counting and times tables."""

from __future__ import annotations

from random import Random

from sglang_dflash.tools.pair.example import Example, say

_COUNT = (
    "Count from {a} to {b}.",
    "List the numbers from {a} to {b}.",
    "Write all numbers between {a} and {b}.",
    "count {a} to {b}",
    "Please count from {a} up to {b}.",
)
_DOWN = (
    "Count down from {a} to {b}.",
    "Count backwards from {a} to {b}.",
    "List the numbers from {a} down to {b}.",
)
_TABLE = (
    "Write the {n} times table up to {m}.",
    "Show the {n} times table up to {m}.",
    "Times table of {n} up to {m}",
    "Multiply {n} by 1 to {m}.",
    "Give me the first {m} multiples of {n}.",
)


def count(rng: Random) -> Example:
    """Counting up or down by one over 5 to 70 numbers."""
    length = rng.randrange(5, 25) if rng.random() < 0.75 else rng.randrange(25, 71)
    low = rng.choices((rng.randrange(1, 30), rng.randrange(30, 130), rng.randrange(130, 900)), (45, 35, 20))[0]
    high = low + length - 1
    down = rng.random() < 0.3
    values = range(high, low - 1, -1) if down else range(low, high + 1)
    question = say(rng, _DOWN if down else _COUNT, a=values[0], b=values[-1])
    return Example(question, ", ".join(map(str, values)) + ".", (values[0], values[-1]))


def times(rng: Random) -> Example:
    """The first rows of a times table, each product by adding to the last."""
    n, m = rng.randrange(2, 40), rng.choices((rng.randrange(3, 11), rng.randrange(11, 21)), (75, 25))[0]
    lines = [f"{i} x {n} = {i * n}" for i in range(1, m + 1)]
    return Example(say(rng, _TABLE, n=n, m=m), "\n".join(lines), (n, m))
