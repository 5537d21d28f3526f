"""One question with its answer, and the helper that words a question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

_FIELD = re.compile(r"(\{[a-z]+\})")
_GREETINGS = ("Hello! ", "Hi, ", "Please help me. ")


@dataclass(frozen=True)
class Example:
    """A single-turn question and the answer the target must give.

    ``key`` names the content (numbers, words) whatever the wording, so that a
    held-out question cannot slip into training in other words. ``None`` marks
    fixed exchanges (a greeting) that are never held out. ``follow`` is the same
    question as an elliptical second turn, where the kind has one.
    """

    question: str
    answer: str
    key: tuple | None
    check: str = "exact"
    follow: str | None = None


def say(rng: Random, templates: Sequence[str], **fields: object) -> str:
    """Word a question: pick a template, vary its letter case and punctuation, fill it in.

    Only the template's own words change case; the filled-in values keep theirs.
    """
    template = rng.choice(templates)
    roll = rng.random()
    if roll < 0.15:
        template = _map_words(template, str.lower)
    elif roll < 0.18:
        template = _map_words(template, str.upper)
    if rng.random() < 0.10 and template[-1] in ".?":
        template = template[:-1]
    if rng.random() < 0.06:
        template = rng.choice(_GREETINGS) + template
    return template.format(**fields)


def _map_words(template: str, change) -> str:
    parts = _FIELD.split(template)
    return "".join(p if _FIELD.fullmatch(p) else change(p) for p in parts)
