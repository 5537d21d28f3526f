"""What every family is asked: short and long prompts, shared prefixes, the same in every run."""

import random
from functools import cache
from typing import NamedTuple

from family import BLOCK, VOCAB

FIRST_WORD = 5  # ids below are the tokenizer's special ones


class Ask(NamedTuple):
    """One greedy request of ``max_new_tokens`` tokens."""

    prompt: tuple[int, ...]
    max_new_tokens: int

    def sampling(self, longer: bool = False, custom_params: dict | None = None) -> dict:
        """Sampling parameters; ``longer`` asks for a block more, which the planted double looks ahead into."""
        params = {
            "temperature": 0.0,
            "max_new_tokens": self.max_new_tokens + (BLOCK if longer else 0),
            "ignore_eos": True,
        }
        return params | ({"custom_params": custom_params} if custom_params else {})


def _ids(rng: random.Random, count: int) -> tuple[int, ...]:
    return tuple(rng.randrange(FIRST_WORD, VOCAB) for _ in range(count))


@cache
def ladder() -> tuple[Ask, ...]:
    """One ask for each commit length, prompts of 2 to about 70 tokens."""
    rng = random.Random(1)
    return tuple(Ask(_ids(rng, 2 + 9 * i), 3 * BLOCK + 1) for i in range(BLOCK))


@cache
def long_prompts() -> tuple[Ask, ...]:
    """Prompts of several chunks, past every window."""
    rng = random.Random(2)
    return tuple(Ask(_ids(rng, length), 30) for length in (65, 130, 201))


@cache
def shared_prefixes() -> tuple[Ask, ...]:
    """Two groups of three that share 48 tokens and then part."""
    rng = random.Random(3)
    return tuple(Ask(prefix + _ids(rng, 5 + 4 * i), 21) for prefix in (_ids(rng, 48), _ids(rng, 48)) for i in range(3))


def every_ask() -> tuple[Ask, ...]:
    """All of them."""
    return ladder() + long_prompts() + shared_prefixes()
