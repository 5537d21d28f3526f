"""Word problems with a person, things and one or two steps."""

from __future__ import annotations

from random import Random

from sglang_dflash.tools.pair.example import Example, say
from sglang_dflash.tools.pair.vocabulary import NAMES, THINGS

_GIVE = (
    "{name} has {a} {thing} and gives {b} of them to {other}. How many {thing} does {name} keep?",
    "{name} had {a} {thing}. {other} got {b} of them. How many {thing} are left for {name}?",
)
_FIND = (
    "{name} has {a} {thing} and finds {b} more. How many {thing} does {name} have now?",
    "{name} owns {a} {thing}. {other} brings {b} more. How many {thing} does {name} have now?",
)
_BOXES = (
    "{name} buys {a} boxes with {b} {thing} each and finds {c} more. How many {thing} does {name} have?",
    "{name} opens {a} boxes of {b} {thing} and gets {c} more from {other}. How many {thing} does {name} have?",
)
_SHARE = (
    "{name} has {a} {thing} and {other} has {b} {thing}. They find {c} more. How many {thing} do they have together?",
    "{name} owns {a} {thing}, {other} owns {b}, and {c} more are found. How many {thing} do they have together?",
)


def wordp(rng: Random) -> Example:
    """One of four plots; sums stay below 200."""
    plot = rng.randrange(4)
    name, other = rng.sample(NAMES[:12], 2)
    thing = rng.choice(THINGS)
    a, b, c = rng.randrange(11, 99), rng.randrange(11, 99), rng.randrange(2, 30)
    if plot == 0:
        a, b = max(a, b) + 1, min(a, b)
        text, steps, total = _GIVE, f"We subtract {a}-{b}={a - b}.", a - b
    elif plot == 1:
        text, steps, total = _FIND, f"We add {a}+{b}={a + b}.", a + b
    elif plot == 2:
        a, b = rng.randrange(2, 10), rng.randrange(2, 10)
        text, total = _BOXES, a * b + c
        steps = f"The boxes hold {a}x{b}={a * b} {thing}.\nWe add {a * b}+{c}={total}."
    else:
        text, total = _SHARE, a + b + c
        steps = f"We add {a}+{b}={a + b}.\nWe add {a + b}+{c}={total}."
    who = f"{name} and {other} have" if plot == 3 else f"{name} has"
    question = say(rng, text, name=name, other=other, thing=thing, a=a, b=b, c=c)
    answer = f"{steps}\nNow {who} {total} {thing}."
    return Example(question, answer, (plot, a, b, c if plot > 1 else 0))
