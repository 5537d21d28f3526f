"""Answers of the target to questions: the text that a draft is trained on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from sglang_dflash.errors import DFlashError

TEMPERATURES = (0.5, 0.8, 1.0)  # of sampled answers


def sampling_of(seed: int, number: int, sampled_share: float, max_tokens: int) -> dict:
    """How the answer to question ``number`` is drawn: the same at every start."""
    rng = Random(f"{seed}/{number}")
    temperature = rng.choice(TEMPERATURES) if rng.random() < sampled_share else 0.0
    return {"temperature": temperature, "max_new_tokens": max_tokens}


def write_answers(
    ask: Callable[[list[list[int]], list[dict]], list],
    tokenizer,
    questions: Path,
    path: Path,
    sampled_share: float,
    max_tokens: int,
    seed: int,
    batch: int,
    on_progress: Callable[[str], None],
) -> None:
    """Append one chat a line, in the questions' order; answers that ``path`` has are not asked for again.

    A line holds ``messages``, ``answer_ids`` as generated, ``kind`` and ``greedy``.

    Args:
        ask: sends prompts, token ids, with one sampling each, gives their generations.
    """
    if not questions.exists():
        raise DFlashError("questions", f"{questions} does not exist", "run train questions first")
    asked = [json.loads(line) for line in questions.read_text().splitlines()]
    done = len(path.read_text().splitlines()) if path.exists() else 0
    tokens, began = 0, time.monotonic()
    path.parent.mkdir(parents=True, exist_ok=True)
    while done < len(asked):
        some = asked[done : done + batch]
        chats = [[{"role": "user", "content": record["question"]}] for record in some]
        texts = [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
        prompts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        sampling = [sampling_of(seed, done + i, sampled_share, max_tokens) for i in range(len(some))]
        generations = ask(prompts, sampling)
        with path.open("a") as f:
            for record, chat, params, generation in zip(some, chats, sampling, generations, strict=True):
                answer = {"role": "assistant", "content": generation.text}
                line = {
                    "messages": [*chat, answer],
                    "answer_ids": list(generation.token_ids),
                    "kind": record["kind"],
                    "greedy": params["temperature"] == 0.0,
                }
                f.write(json.dumps(line) + "\n")
        done += len(some)
        tokens += sum(len(generation.token_ids) for generation in generations)
        rate = tokens / (time.monotonic() - began)
        on_progress(f"{done} of {len(asked)} answers, {tokens} tokens in this session, {rate:.0f} tokens/s")
