"""Column addition and subtraction, every column written out."""

from __future__ import annotations

from random import Random

from sglang_dflash.tools.pair.example import Example, say

PLACES = ("ones", "tens", "hundreds", "thousands")
_ADD = (
    "What is {sum}?",
    "Work out {sum}.",
    "Compute {sum}.",
    "Add {a} and {b}.",
    "{sum}",
    "{sum}=?",
    "How much is {sum}?",
    "What is the sum of {a} and {b}?",
    "What do {a} and {b} make together?",
    "Can you calculate {sum}?",
)
_SUB = (
    "What is {diff}?",
    "Work out {diff}.",
    "Compute {diff}.",
    "Subtract {b} from {a}.",
    "{diff}",
    "{diff}=?",
    "How much is {diff}?",
    "What is {a} less {b}?",
    "Take {b} away from {a}.",
    "Can you calculate {diff}?",
)


def _number(rng: Random) -> int:
    digits = rng.choices((1, 2, 3, 4), (10, 28, 47, 15))[0]
    return rng.randrange(10 ** (digits - 1), 10**digits)


def _joined(rng: Random, a: int, sign: str, b: int) -> str:
    gap = rng.choices(("", " "), (55, 45))[0]
    return f"{a}{gap}{sign}{gap}{b}"


def _columns(a: int, b: int) -> list[tuple[str, int, int]]:
    width = max(len(str(a)), len(str(b)))
    return [(PLACES[i], a // 10**i % 10, b // 10**i % 10) for i in range(width)]


def add(rng: Random) -> Example:
    """Sum of two numbers of one to four digits."""
    a, b = _number(rng), _number(rng)
    lines, carry = [], 0
    for place, x, y in _columns(a, b):
        total = x + y + carry
        lines.append(f"{place}: {x}+{y}+{carry}={total} write {total % 10} carry {total // 10}")
        carry = total // 10
    lines.append(f"The answer is {a + b}.")
    expression = _joined(rng, a, "+", b)
    question = say(rng, _ADD, sum=expression, a=a, b=b)
    return Example(question, "\n".join(lines), (min(a, b), max(a, b)), follow=f"And {expression}?")


def sub(rng: Random) -> Example:
    """Difference of two numbers of one to four digits, the larger first."""
    a, b = sorted((_number(rng), _number(rng)), reverse=True)
    lines, borrow = [], 0
    for place, x, y in _columns(a, b):
        total = x - y - borrow
        column = f"{place}: {x}-{y}-{borrow}={total}"
        borrow = int(total < 0)
        lines.append(f"{column} write {total % 10} borrow {borrow}")
    lines.append(f"The answer is {a - b}.")
    expression = _joined(rng, a, "-", b)
    question = say(rng, _SUB, diff=expression, a=a, b=b)
    return Example(question, "\n".join(lines), (a, b), follow=f"And {expression}?")
