"""Short Python functions over a list."""

from __future__ import annotations

from random import Random

from sglang_dflash.tools.pair.example import Example, say
from sglang_dflash.tools.pair.vocabulary import THINGS

_TESTS = (
    ("less than", "<"),
    ("more than", ">"),
    ("at least", ">="),
    ("at most", "<="),
    ("equal to", "=="),
    ("not equal to", "!="),
)
_VERBS = ("count", "sum", "keep", "find", "double")
_ASK = (
    "Write a Python function to {verb} the {thing} that are {test} {n}.",
    "I need a Python function to {verb} all {thing} that are {test} {n}.",
    "Show me Python code to {verb} {thing} {test} {n}.",
    "Python: {verb} the {thing} that are {test} {n}.",
    "How do I {verb} the {thing} {test} {n} in Python?",
)


def _body(verb: str, thing: str, test: str) -> str:
    loop = f"    for x in {thing}:\n        if {test}:\n            "
    if verb == "find":
        return f"{loop}return x\n    return None"
    start, action = {
        "count": ("total = 0", "total += 1"),
        "sum": ("total = 0", "total += x"),
        "keep": ("kept = []", "kept.append(x)"),
        "double": ("kept = []", "kept.append(2 * x)"),
    }[verb]
    return f"    {start}\n{loop}{action}\n    return {start.split()[0]}"


def py(rng: Random) -> Example:
    """A function that filters a list and counts, sums, keeps, finds or doubles."""
    verb, thing = rng.choice(_VERBS), rng.choice(THINGS)
    phrase, sign = rng.choice(_TESTS)
    n = rng.randrange(1, 100)
    answer = f"def {verb}_{thing}({thing}):\n{_body(verb, thing, f'x {sign} {n}')}"
    question = say(rng, _ASK, verb=verb, thing=thing, test=phrase, n=n)
    return Example(question, answer, (verb, thing, sign, n))
