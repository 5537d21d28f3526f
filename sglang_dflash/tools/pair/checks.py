"""Checkers: is an answer right? One small function per rule, chosen by a record's ``check`` field."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from sglang_dflash.errors import DFlashError


def repeated_share(items: Sequence, n: int = 4) -> float:
    """Share of n-grams that already occurred earlier in ``items``."""
    grams = [tuple(items[i : i + n]) for i in range(len(items) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _exact(answer: str, record: dict) -> bool:
    return answer.strip() == record["answer"]


def _json(answer: str, record: dict) -> bool:
    try:
        given = json.loads(answer)
    except ValueError:
        return False
    return isinstance(given, dict) and list(given.items()) == list(json.loads(record["answer"]).items())


def _prose(answer: str, record: dict) -> bool:
    """Form only: whole sentences about the person and the city asked for, without a loop."""
    name, _, city = record["key"]
    sentences = re.findall(r"[A-Z][^.]*\.", answer)
    whole = " ".join(sentences) == answer.strip()
    about = name in answer and city in answer
    return whole and about and 2 <= len(sentences) <= 9 and repeated_share(answer.split()) < 0.2


CHECKS: dict[str, Callable[[str, dict], bool]] = {"exact": _exact, "json": _json, "prose": _prose}


def is_right(answer: str, record: dict) -> bool:
    """Apply the record's own rule to an answer."""
    rule = record["check"]
    if rule not in CHECKS:
        raise DFlashError("check", f"unknown rule {rule!r}", f"use one of {', '.join(CHECKS)}")
    return CHECKS[rule](answer, record)
