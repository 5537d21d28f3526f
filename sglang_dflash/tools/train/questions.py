"""Questions sampled from the target itself, after its chat template's user prefix (Magpie, arXiv 2406.08464)."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from sglang_dflash.errors import DFlashError

# What the system prompt says while a question is sampled; the answer is asked for without it.
SYSTEMS: dict[str, str | None] = {
    "general": None,
    "code": "You are an AI assistant that helps users with Python programming. "
    "Users ask you to write functions and programs.",
    "math": "You are an AI assistant that solves math word problems step by step. Users give you one word problem.",
    "text": "You are an AI assistant that helps users to write, explain, summarise and rewrite text.",
}
MIX = ("general", "code", "general", "math", "general", "code", "text", "math")
SAMPLING = {"temperature": 1.0, "top_p": 0.95}
LONGEST = 110  # tokens of a question
WORDS = (3, 100)
NEAR = 8  # so many words in a row that an evaluation prompt has too make a question its near-duplicate
_MARK = "@@question@@"
_COMMON = re.compile(r"\b(the|a|an|of|to|and|in|is|for|how|what|i|that)\b")


class Prefix(NamedTuple):
    """What a question follows in the chat template, and the token that ends it."""

    text: str
    end: int


def user_prefix(tokenizer, system: str | None = None) -> Prefix:
    """The template up to a user's words, and the token right after them.

    Raises:
        DFlashError: the tokenizer has no template, or one that changes the words.
    """
    if tokenizer.chat_template is None:
        raise DFlashError("target", "has no chat template", "give questions of your own to train answers")
    chat = [{"role": "system", "content": system}] if system else []
    text = tokenizer.apply_chat_template([*chat, {"role": "user", "content": _MARK}], tokenize=False)
    if text.count(_MARK) != 1:
        raise DFlashError("target", "has a chat template that changes words", "give questions of your own")
    before, after = text.split(_MARK)
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    if not ids:
        raise DFlashError("target", "has a chat template that does not end a user's turn", "give your own questions")
    return Prefix(before, ids[0])


def words_of(text: str) -> list[str]:
    """Lower-case words and numbers."""
    return re.findall(r"[a-z0-9]+", text.lower())


def runs_of(words: Sequence[str], count: int) -> set[tuple[str, ...]]:
    """Every run of ``count`` words."""
    return {tuple(words[i : i + count]) for i in range(len(words) - count + 1)}


class QuestionFilter:
    """Keeps questions of usable length, in English, without loops, new, and unlike the evaluation prompts."""

    def __init__(self, evaluation: Iterable[str]) -> None:
        self._evaluation = set().union(*(runs_of(words_of(prompt), NEAR) for prompt in evaluation))
        self._seen: set[str] = set()
        self.dropped: Counter[str] = Counter()

    def keeps(self, question: str) -> bool:
        """Whether the question is wanted; it counts as seen then."""
        reason = self._reason(question)
        if reason:
            self.dropped[reason] += 1
        else:
            self._seen.add(" ".join(words_of(question)))
        return reason is None

    def _reason(self, question: str) -> str | None:
        words = words_of(question)
        if not WORDS[0] <= len(words) <= WORDS[1]:
            return "length"
        if sum(ord(c) < 128 for c in question) < 0.97 * len(question):
            return "language"
        if len(words) > NEAR and not _COMMON.search(question.lower()):
            return "language"
        threes = Counter(zip(words, words[1:], words[2:], strict=False))
        if max(threes.values()) > max(3, len(words) / 12):
            return "repetition"
        if runs_of(words, NEAR) & self._evaluation:
            return "evaluation"
        return "duplicate" if " ".join(words) in self._seen else None


def write_questions(
    ask: Callable[[list[str], dict], list],
    tokenizer,
    wanted: QuestionFilter,
    path: Path,
    count: int,
    batch: int,
    on_progress: Callable[[str], None],
) -> None:
    """Append ``{"question", "kind"}`` lines until ``path`` has ``count``; lines that are there count and are not asked.

    Args:
        ask: sends prompts with one sampling for all, gives their generations.
        batch: prompts sent at a time; kinds take turns by batches.
    """
    have = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for record in have:
        wanted.keeps(record["question"])
    done, turn = len(have), len(have) // batch
    tokens, began = 0, time.monotonic()
    path.parent.mkdir(parents=True, exist_ok=True)
    while done < count:
        kind = MIX[turn % len(MIX)]
        prefix = user_prefix(tokenizer, SYSTEMS[kind])
        generations = ask(
            [prefix.text] * batch, {**SAMPLING, "max_new_tokens": LONGEST, "stop_token_ids": [prefix.end]}
        )
        ended = [g.text.strip() for g in generations if g.meta["finish_reason"]["type"] == "stop"]
        wanted.dropped["unfinished"] += len(generations) - len(ended)
        kept = [question for question in ended if wanted.keeps(question)][: count - done]
        with path.open("a") as f:
            f.write("".join(json.dumps({"question": question, "kind": kind}) + "\n" for question in kept))
        done += len(kept)
        turn += 1
        tokens += sum(len(generation.token_ids) for generation in generations)
        rate = tokens / (time.monotonic() - began)
        on_progress(f"{done} of {count} questions, dropped {dict(wanted.dropped)}, {rate:.0f} tokens/s")
