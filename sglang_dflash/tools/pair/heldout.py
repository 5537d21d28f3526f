"""The shipped held-out sets: one JSON line per prompt, with answer, content key and rule."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.pair import HELDOUT_DIR
from sglang_dflash.tools.pair.kinds import KINDS
from sglang_dflash.tools.pair.stream import HELDOUT_PER_KIND, HELDOUT_SEED, heldout_examples

CHAT = "chat"  # two-turn chats made of held-out questions
HELDOUT_KINDS = (*KINDS, CHAT)


def _record(kind: str, number: int, messages: list[dict], example) -> dict:
    return {
        "id": f"{kind}-{number:03d}",
        "kind": kind,
        "messages": messages,
        "answer": example.answer,
        "check": example.check,
        "key": list(example.key),
    }


def _user(text: str) -> dict:
    return {"role": "user", "content": text}


def build_records(kind: str) -> list[dict]:
    """The held-out records of a kind, from the generators."""
    if kind != CHAT:
        return [_record(kind, i, [_user(e.question)], e) for i, e in enumerate(heldout_examples(kind))]
    rng = Random(f"chat/{HELDOUT_SEED}")
    names = [k for k in KINDS if k not in ("count", "times", "prose", "refuse")]
    records = []
    for i in range(HELDOUT_PER_KIND):
        first_kind = rng.choice(names)
        first = heldout_examples(first_kind)[i]
        second_kind = first_kind if i % 2 else rng.choice(names)
        second = heldout_examples(second_kind)[(i + 7) % HELDOUT_PER_KIND]
        ask = second.follow if second_kind == first_kind and second.follow else second.question
        messages = [_user(first.question), {"role": "assistant", "content": first.answer}, _user(ask)]
        records.append(_record(kind, i, messages, second))
    return records


def load_heldout(kind: str, limit: int | None = None, folder: Path = HELDOUT_DIR) -> list[dict]:
    """Records of a kind: ``id, kind, messages, answer, check, key``."""
    path = folder / f"{kind}.jsonl"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.jsonl")))
        raise DFlashError("kind", f"no held-out set {kind!r} in {folder}", f"use one of: {known}")
    return [json.loads(line) for line in path.read_text().splitlines()][:limit]
