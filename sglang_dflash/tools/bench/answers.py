"""Greedy answers of one system in a file that a later run goes on with."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from sglang_dflash.tools.bench.prompts import Prompt


class Answer(NamedTuple):
    """One answer. ``kept``: how many rounds kept 0, 1, 2, ... draft tokens; empty where nothing was drafted."""

    token_ids: tuple[int, ...]
    kept: tuple[int, ...] = ()


class AnswerFile:
    """JSONL, one answer a line; what a crash left unfinished is cut off."""

    def __init__(self, path: Path):
        self.path = path
        self._answers: dict[str, Answer] = {}
        if path.exists():
            text = path.read_text()
            whole = text[: text.rfind("\n") + 1]
            if whole != text:
                path.write_text(whole)
            for line in whole.splitlines():
                row = json.loads(line)
                self._answers[row["prompt"]] = Answer(tuple(row["token_ids"]), tuple(row["kept"]))

    def missing(self, prompts: Iterable[Prompt]) -> list[Prompt]:
        """Those that have no answer yet."""
        return [prompt for prompt in prompts if _key(prompt) not in self._answers]

    def of(self, prompts: Iterable[Prompt]) -> list[Answer]:
        """Answers to ``prompts``, all of which are here."""
        return [self._answers[_key(prompt)] for prompt in prompts]

    def add(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> None:
        """Append answers."""
        found = {_key(prompt): answer for prompt, answer in zip(prompts, answers, strict=True)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as f:
            f.writelines(json.dumps({"prompt": key, **answer._asdict()}) + "\n" for key, answer in found.items())
        self._answers |= found


def _key(prompt: Prompt) -> str:
    """Tells a prompt from others, and from what it was before its file or template changed."""
    return f"{prompt.id} {zlib.crc32(repr(prompt.token_ids).encode()):08x}"


def fill(
    file: AnswerFile,
    prompts: Sequence[Prompt],
    ask: Callable[[Sequence[Prompt]], list[Answer]],
    batch: int,
    on_progress: Callable[[int, int], None],
) -> None:
    """Ask for what is missing, ``batch`` prompts at a time; ``on_progress(done, count)`` after each."""
    left = file.missing(prompts)
    while left:
        some, left = left[:batch], left[batch:]
        file.add(some, ask(some))
        on_progress(len(prompts) - len(left), len(prompts))
