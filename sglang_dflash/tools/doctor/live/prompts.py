"""What a pair is asked."""

from collections.abc import Sequence
from pathlib import Path

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.bench.prompts import load_prompts
from sglang_dflash.tools.pair import HELDOUT_DIR, TARGET_DIR

_QUESTIONS = (
    "How many positive whole-number divisors does 196 have? Explain each step.",
    "Write a Python function that merges two sorted lists, and say how long it takes.",
    "Write a quicksort in Python.",
    "A train leaves at 9:40 and arrives at 13:05. How long is the journey? Show your work.",
    "List the planets of the solar system with one sentence about each.",
    "Explain to a child why the sky is blue.",
)


def prompts_for(target: str, folder: Path, count: int, thinking: str | None) -> list[tuple[int, ...]]:
    """Token ids of ``count`` prompts: questions that the embedded target knows, or general ones for any other.

    Raises:
        DFlashError: the target has no chat template.
    """
    if folder.resolve() == TARGET_DIR.resolve():
        return [prompt.token_ids for prompt in load_prompts(target, HELDOUT_DIR, per_kind=2)][:count]
    return [render(folder, question, thinking) for question in _QUESTIONS[:count]]


def render(folder: Path, question: str, thinking: str | None) -> tuple[int, ...]:
    """A question through the target's own tokenizer and chat template; none of the checkpoint's code is run."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if tokenizer.chat_template is None:
        raise DFlashError("target chat template", "is missing", "measure with a target that has one")
    asked = {} if thinking is None else {"enable_thinking": thinking == "on"}
    messages: Sequence[dict] = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **asked)
    return tuple(tokenizer(text, add_special_tokens=False).input_ids)
