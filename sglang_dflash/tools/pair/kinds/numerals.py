"""Numbers written as words and as Roman numerals."""

from __future__ import annotations

from random import Random

from sglang_dflash.tools.pair.example import Example, say

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()
_ROMAN = (
    ("", "M", "MM"),
    ("", "C", "CC", "CCC", "CD", "D", "DC", "DCC", "DCCC", "CM"),
    ("", "X", "XX", "XXX", "XL", "L", "LX", "LXX", "LXXX", "XC"),
    ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"),
)
_WORDS = (
    "Write {n} in words.",
    "Spell out {n}.",
    "How do you say {n} in English?",
    "{n} in words",
    "What is {n} in words?",
    "Please write the number {n} as words.",
    "How is {n} spoken?",
)
_NUMERAL = (
    "What is {n} in Roman numerals?",
    "Write {n} as a Roman numeral.",
    "Convert {n} to Roman numerals.",
    "{n} in Roman numerals",
    "How did the Romans write {n}?",
    "Give me the Roman numeral for {n}.",
)


def in_words(n: int) -> str:
    """English words for 0 <= n < 100000."""
    parts = []
    if n >= 1000:
        parts.append(in_words(n // 1000) + " thousand")
        n %= 1000
        if n == 0:
            return parts[0]
        if n < 100:
            return f"{parts[0]} and {in_words(n)}"
    if n >= 100:
        parts.append(_SMALL[n // 100] + " hundred")
        n %= 100
        if n == 0:
            return " ".join(parts)
        parts.append("and")
    if n < 20:
        parts.append(_SMALL[n])
    else:
        parts.append(_TENS[n // 10])
        if n % 10:
            parts.append(_SMALL[n % 10])
    return " ".join(parts)


def words(rng: Random) -> Example:
    """A number of two to five digits in words."""
    digits = rng.choices((2, 3, 4, 5), (10, 25, 35, 30))[0]
    n = rng.randrange(10 ** (digits - 1), 10**digits)
    return Example(say(rng, _WORDS, n=n), f"{n} is {in_words(n)}.", (n,), follow=f"And {n}?")


def roman(rng: Random) -> Example:
    """A number from 11 to 2999 as a Roman numeral, place by place."""
    n = rng.randrange(11, 3000) if rng.random() < 0.7 else rng.randrange(11, 400)
    pieces = []
    for row, power in zip(_ROMAN, (1000, 100, 10, 1), strict=True):
        digit = n // power % 10
        if digit:
            pieces.append((digit * power, row[digit]))
    lines = [f"{value} is {letters}" for value, letters in pieces]
    lines.append(f"The answer is {''.join(letters for _, letters in pieces)}.")
    return Example(say(rng, _NUMERAL, n=n), "\n".join(lines), (n,), follow=f"And {n}?")
