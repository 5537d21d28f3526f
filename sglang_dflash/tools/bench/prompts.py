"""Prompts with their answers, rendered to token ids once, so that every system gets the same input."""

import argparse
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
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


Sources = Path | Sequence[Path]


def load_prompts(
    target: str,
    source: Sources,
    kinds: Sequence[str] | None = None,
    per_kind: int | None = None,
    longest: bool = False,
    room: int | None = None,
    say: Callable[[str], None] = print,
) -> list[Prompt]:
    """Prompts of folders of ``<kind>.jsonl`` files, or of such files, kinds taking turns.

    Args:
        target: model folder or hub name, whose tokenizer and chat template render the messages.
        kinds: which ones; None takes every kind found.
        per_kind: how many of each kind, the first ones; None takes all.
        longest: take those with the longest answers instead.
        room: tokens that a prompt may have; ``say`` is told how many longer ones are left out. None: any number.

    Raises:
        DFlashError: nothing found, an unknown kind, or one whose prompts are all too long.
    """
    files = _files(source)
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
        rendered = (Prompt(r["id"], r["kind"], render(r["messages"]), r) for r in records)
        columns.append(_first(rendered, len(records), per_kind, room, kind, say))
    rows = max(len(column) for column in columns)
    return [column[row] for row in range(rows) for column in columns if row < len(column)]


def _first(rendered: Iterator[Prompt], count: int, wanted: int | None, room: int | None, kind: str, say):
    """The first ``wanted`` prompts of ``count`` that have room."""
    if room is None:
        return list(itertools.islice(rendered, wanted))
    every = list(rendered)
    fitting = [prompt for prompt in every if len(prompt.token_ids) <= room]
    if not fitting:
        shortest = min(len(prompt.token_ids) for prompt in every)
        raise DFlashError(
            "prompts",
            f"the shortest prompt of {kind} has {shortest} tokens, and the target's context has room for {room}",
            "choose other prompts, or shorter answers",
        )
    if len(fitting) < count:
        say(f"{kind}: {count - len(fitting)} of {count} prompts have more than {room} tokens, and are left out")
    return fitting[:wanted]


def prompt_room(target: str, max_tokens: int, flags: Sequence[str] = ()) -> int | None:
    """Tokens that a prompt may have beside an answer of ``max_tokens`` in the context of the target, or of the flags.

    None where neither says how long that is.
    """
    from transformers import AutoConfig

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--context-length", type=int)
    context = parser.parse_known_args(list(flags))[0].context_length
    if context is None:
        context = getattr(AutoConfig.from_pretrained(target).get_text_config(), "max_position_embeddings", None)
    return None if context is None else context - max_tokens


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


def kinds_in(source: Sources) -> list[str]:
    """The kinds found there."""
    return list(_files(source))


def _files(source: Sources) -> dict[str, Path]:
    """Files by kind."""
    found = {}
    for path in [Path(source)] if isinstance(source, str | Path) else source:
        here = sorted(path.glob("*.jsonl")) if path.is_dir() else [path] if path.exists() else []
        if not here:
            raise DFlashError(
                "prompts", f"no .jsonl files at {path}", "give a folder of <kind>.jsonl files, or one file"
            )
        found |= {file.stem: file for file in here}
    return found


def renderer(target: str):
    """A function from chat messages to token ids, by the target's own tokenizer and chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(target)

    def render(messages: Sequence[dict]) -> tuple[int, ...]:
        text = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
        return tuple(tokenizer(text, add_special_tokens=False).input_ids)

    return render
