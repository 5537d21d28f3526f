"""Prompts with their answers, rendered to token ids once, so that every system gets the same input."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sglang_dflash.errors import DFlashError


class Prompt(NamedTuple):
    """One question. ``record`` is its held-out record: ``id, kind, messages, answer, check, key``."""

    id: str
    kind: str
    token_ids: tuple[int, ...]
    record: dict

    @property
    def question(self) -> str:
        """The last message."""
        return self.record["messages"][-1]["content"]


def load_prompts(
    target: str,
    source: Path,
    kinds: Sequence[str] | None = None,
    per_kind: int | None = None,
    longest: bool = False,
) -> list[Prompt]:
    """Prompts of a folder of ``<kind>.jsonl`` files, or of one such file, kinds taking turns.

    Args:
        target: model folder or hub name, whose tokenizer and chat template render the messages.
        kinds: which ones; None takes every kind found.
        per_kind: how many of each kind, the first ones; None takes all.
        longest: take those with the longest answers instead.

    Raises:
        DFlashError: nothing found, or an unknown kind.
    """
    files = {path.stem: path for path in _files(Path(source))}
    wanted = list(files) if kinds is None else list(kinds)
    for kind in wanted:
        if kind not in files:
            raise DFlashError("kinds", f"no {kind!r} in {source}", f"use some of {', '.join(files)}")
    render = renderer(target)
    columns = []
    for kind in wanted:
        records = read_records(files[kind])
        if longest:
            records.sort(key=lambda record: -len(record["answer"]))
        records = records[:per_kind]
        columns.append([Prompt(r["id"], r["kind"], render(r["messages"]), r) for r in records])
    longest = max(len(column) for column in columns)
    return [column[row] for row in range(longest) for column in columns if row < len(column)]


def read_records(path: Path) -> list[dict]:
    """Records of a JSONL file: lines with ``messages``, or with one question as ``prompt`` or ``question``.

    ``id``, ``kind`` (the file's name) and ``answer`` (empty) are filled in where they are missing.

    Raises:
        DFlashError: a line has no question.
    """
    records = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            given = json.loads(line)
            messages = given.get("messages") or [{"role": "user", "content": given.get("prompt") or given["question"]}]
        except (ValueError, KeyError, AttributeError):
            raise DFlashError(
                "prompts", f"{path} line {number} has no question", "give JSON with messages, prompt or question"
            ) from None
        filled = {"id": f"{path.stem}-{number}", "kind": path.stem, "answer": ""}
        records.append({**filled, **given, "messages": messages})
    return records


def kinds_in(source: Path) -> list[str]:
    """The kinds found there."""
    return [path.stem for path in _files(Path(source))]


def _files(source: Path) -> list[Path]:
    found = sorted(source.glob("*.jsonl")) if source.is_dir() else [source] if source.exists() else []
    if not found:
        raise DFlashError("prompts", f"no .jsonl files at {source}", "give a folder of <kind>.jsonl files, or one file")
    return found


def renderer(target: str):
    """A function from chat messages to token ids, by the target's own tokenizer and chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(target)

    def render(messages: Sequence[dict]) -> tuple[int, ...]:
        text = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
        return tuple(tokenizer(text, add_special_tokens=False).input_ids)

    return render
