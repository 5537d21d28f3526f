"""Pairs by name: the embedded one, and SmolLM2 with the draft of this package. Cheap to import."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.pair import DRAFT_DIR, HELDOUT_DIR, TARGET_DIR
from sglang_dflash.tools.pair.smollm2 import SMOLLM2_DRAFT_DIR, SMOLLM2_HELDOUT_DIR

EMBEDDED, SMOLLM2 = "embedded", "smollm2"


class Pair(NamedTuple):
    """Target and draft, folders or hub names, and the folder of <kind>.jsonl that suits them."""

    target: str
    draft: str
    prompts: Path


class Pace(NamedTuple):
    """How much demo and bench measure unless told otherwise: minutes, at the pair's speed."""

    shown: int  # questions of the demo
    demo_prompts: int
    demo_repeats: int
    prompts: int  # of bench, over all kinds
    repeats: int
    streamed: int  # repetitions that stream
    concurrencies: str
    max_tokens: int


PACES = {
    EMBEDDED: Pace(5, 48, 3, 34, 5, 2, "1,4,8,16", 256),
    SMOLLM2: Pace(2, 8, 1, 8, 2, 1, "1,4,8", 48),  # eighty times the parameters
}


def _embedded(dtype: str) -> Pair:
    if dtype != "float32":
        raise DFlashError(
            "dtype", f"is {dtype!r}", "the embedded pair is float32; SGLang's --dtype serves it otherwise"
        )
    return Pair(str(TARGET_DIR), str(DRAFT_DIR), HELDOUT_DIR)


def _smollm2(dtype: str) -> Pair:
    from sglang_dflash.tools.pair.smollm2.build import build_target

    return Pair(str(build_target(dtype)), str(SMOLLM2_DRAFT_DIR), SMOLLM2_HELDOUT_DIR)


PAIRS: dict[str, Callable[[str], Pair]] = {EMBEDDED: _embedded, SMOLLM2: _smollm2}


def find_pair(name: str, target: str = "", draft: str = "", dtype: str = "float32") -> Pair:
    """The pair of that name, made at its first use; ``target`` and ``draft``, where given, replace its own.

    Raises:
        DFlashError: an unknown name, or the pair cannot be made here.
    """
    if name not in PAIRS:
        raise DFlashError("pair", f"is {name!r}", f"use one of {', '.join(PAIRS)}")
    found = PAIRS[name](dtype)
    return found._replace(target=target or found.target, draft=draft or found.draft)
