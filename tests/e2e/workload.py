"""Requests as varied as a server sees them, the same in every run."""

import random

from exact import Ask

from sglang_dflash.tools.pair.heldout import HELDOUT_KINDS, load_heldout


def questions(tokenizer, per_kind: int, max_new_tokens: int = 120) -> list[Ask]:
    """Held-out questions of every kind, in the chat template, to their own end."""
    return [
        Ask(tuple(_chat(tokenizer, record["messages"])), max_new_tokens, ignore_eos=False)
        for kind in HELDOUT_KINDS
        for record in load_heldout(kind, limit=per_kind)
    ]


def _chat(tokenizer, messages) -> list[int]:
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)


def answered_before(record) -> list[dict]:
    """Messages: a held-out question, its answer, and the question again."""
    return [*record["messages"], {"role": "assistant", "content": record["answer"]}, record["messages"][-1]]


def mixed_lengths(tokenizer, count: int, longest_prompt: int, longest_answer: int, seed: int) -> list[Ask]:
    """Prompts of 1 to ``longest_prompt`` tokens cut from chats, answers of 1 to ``longest_answer`` tokens."""
    rng = random.Random(seed)
    stream = [token for ask in questions(tokenizer, 8) for token in ask.prompt]
    asks = []
    for _ in range(count):
        length = int(longest_prompt ** rng.random())
        start = rng.randrange(len(stream))
        prompt = (stream[start:] + stream * (length // len(stream) + 1))[:length]
        asks.append(Ask(tuple(prompt), int(longest_answer ** rng.random())))
    return asks


def shared_prefixes(tokenizer, groups: int, each: int, prefix_len: int, seed: int) -> list[Ask]:
    """Groups of requests that share ``prefix_len`` tokens and then part."""
    rng = random.Random(seed)
    pool = questions(tokenizer, 4)
    stream = [token for ask in pool for token in ask.prompt]
    asks = []
    for _ in range(groups):
        start = rng.randrange(len(stream) - prefix_len)
        prefix = tuple(stream[start : start + prefix_len])
        asks += [Ask(prefix + rng.choice(pool).prompt, rng.randint(4, 60)) for _ in range(each)]
    rng.shuffle(asks)
    return asks
