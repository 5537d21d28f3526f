"""Day-of-week arithmetic and unit conversion."""

from __future__ import annotations

from random import Random

from sglang_dflash.tools.pair.example import Example, say
from sglang_dflash.tools.pair.vocabulary import DAYS

_DAY = (
    "What day is {n} days after {day}?",
    "Which day of the week comes {n} days after {day}?",
    "Today is {day}. What day will it be in {n} days?",
    "If today is {day}, which day is it in {n} days?",
    "{day} plus {n} days",
    "It is {day} now. Which weekday comes {n} days later?",
)
_UNITS = (
    ("week", "weeks", "day", "days", 7),
    ("day", "days", "hour", "hours", 24),
    ("hour", "hours", "minute", "minutes", 60),
    ("minute", "minutes", "second", "seconds", 60),
    ("year", "years", "month", "months", 12),
    ("dozen", "dozens", "egg", "eggs", 12),
    ("foot", "feet", "inch", "inches", 12),
)
_CONVERT = (
    "Change {big} and {small} into {unit}.",
    "How many {unit} are {big} and {small}?",
    "Convert {big} and {small} to {unit}.",
    "What is {big} and {small} in {unit}?",
    "{big} and {small} in {unit}",
    "Give {big} and {small} as {unit}.",
)


def day(rng: Random) -> Example:
    """The weekday some days after another."""
    start, n = rng.randrange(7), rng.randrange(3, 200)
    rest = n % 7
    lines = [f"{n}=7x{n // 7}+{rest}"]
    if rest:
        path = ", ".join(DAYS[(start + i) % 7] for i in range(1, rest + 1))
        lines.append(f"Count {rest} days after {DAYS[start]}: {path}.")
    lines.append(f"The answer is {DAYS[(start + rest) % 7]}.")
    return Example(say(rng, _DAY, n=n, day=DAYS[start]), "\n".join(lines), (start, n))


def convert(rng: Random) -> Example:
    """A compound amount in the smaller unit."""
    unit = rng.randrange(len(_UNITS))
    one, many, small_one, small_many, factor = _UNITS[unit]
    a, b = rng.randrange(2, 20), rng.randrange(2, min(60, factor * 3))
    product = a * factor
    lines = [
        f"One {one} is {factor} {small_many}.",
        f"{a}x{factor}={product}",
        f"{product}+{b}={product + b}",
        f"The answer is {product + b} {small_many}.",
    ]
    question = say(rng, _CONVERT, big=f"{a} {many}", small=f"{b} {small_many}", unit=small_many)
    return Example(question, "\n".join(lines), (unit, a, b))
