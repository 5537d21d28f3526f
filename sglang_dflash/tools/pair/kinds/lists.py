"""Arithmetic sequences and sorting, with intermediate steps."""

from __future__ import annotations

from random import Random

from sglang_dflash.tools.pair.example import Example, say

_SEQ = (
    "What comes next: {terms}?",
    "Continue the sequence {terms}.",
    "{terms}, what comes next?",
    "Which three numbers follow {terms}?",
    "Find the next terms of {terms}.",
    "Next three terms: {terms}",
)
_SORT_UP = (
    "Sort {terms} from small to large.",
    "Put {terms} in order.",
    "Sort these numbers: {terms}.",
    "Order {terms} from smallest to largest.",
    "sort {terms}",
    "Arrange {terms}, smallest first.",
)


def _listed(rng: Random, values: list[int]) -> str:
    return rng.choices((", ", ",", " "), (70, 15, 15))[0].join(map(str, values))


def seq(rng: Random) -> Example:
    """Three more terms of a rising or falling arithmetic sequence."""
    step = rng.randrange(2, 20)
    if rng.random() < 0.5:
        start = rng.randrange(1, 100)
        terms = [start + i * step for i in range(7)]
        head = f"The step is {terms[1]}-{terms[0]}={step}."
    else:
        start = rng.randrange(6 * step + 1, 6 * step + 80)
        terms = [start - i * step for i in range(7)]
        head = f"The step is {terms[0]}-{terms[1]}={step}."
    sign = "+" if terms[1] > terms[0] else "-"
    lines = [head] + [f"{terms[i]}{sign}{step}={terms[i + 1]}" for i in (3, 4, 5)]
    lines.append(f"The next terms are {', '.join(map(str, terms[4:]))}.")
    question = say(rng, _SEQ, terms=_listed(rng, terms[:4]))
    return Example(question, "\n".join(lines), tuple(terms[:2]))


def sort(rng: Random) -> Example:
    """Three to six different two-digit numbers, picking the smallest again and again."""
    values = rng.sample(range(10, 100), rng.choices((3, 4, 5, 6), (30, 35, 25, 10))[0])
    left, lines = list(values), []
    while len(left) > 1:
        low = min(left)
        lines.append(f"{', '.join(map(str, left))}: take {low}")
        left.remove(low)
    lines.append(f"The order is {', '.join(map(str, sorted(values)))}.")
    question = say(rng, _SORT_UP, terms=_listed(rng, values))
    return Example(question, "\n".join(lines), tuple(values))
