"""Deterministic examples and the endless training stream.

Every example is a pure function of (split, kind, seed, index). Held-out content is
drawn first; the training stream skips whatever shares a content key with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from random import Random

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.pair.example import Example
from sglang_dflash.tools.pair.kinds import KINDS

HELDOUT_SEED = 2026
HELDOUT_PER_KIND = 100
VALIDATION_PER_KIND = 40  # drawn after the held-out ones; steer the mix during training
TWO_TURN_SHARE = 0.12
Turns = list[tuple[str, str]]  # (question, answer) per turn
_CHATTY = (
    "add",
    "sub",
    "words",
    "roman",
    "day",
    "convert",
    "wordp",
    "seq",
    "sort",
    "table",
    "csv",
    "echo",
    "refuse",
)


def example_at(split: str, kind: str, seed: int, index: int) -> Example:
    """The example number ``index`` of a kind: the same on every machine and Python version."""
    return KINDS[kind](Random(f"{split}/{kind}/{seed}/{index}"))


@cache
def heldout_examples(kind: str, count: int = HELDOUT_PER_KIND, seed: int = HELDOUT_SEED) -> tuple[Example, ...]:
    """``count`` examples with different keys."""
    found: dict[tuple, Example] = {}
    index = 0
    while len(found) < count:
        example = example_at("heldout", kind, seed, index)
        index += 1
        if example.key is not None:
            found.setdefault(example.key, example)
    return tuple(found.values())


@cache
def heldout_keys(kind: str) -> frozenset[tuple]:
    """Content keys that training must not contain: held-out and validation examples."""
    return frozenset(e.key for e in heldout_examples(kind, HELDOUT_PER_KIND + VALIDATION_PER_KIND))


def validation_examples(kind: str) -> tuple[Example, ...]:
    """Examples that steer training; neither trained on nor shipped as held-out."""
    return heldout_examples(kind, HELDOUT_PER_KIND + VALIDATION_PER_KIND)[HELDOUT_PER_KIND:]


def training_examples(kind: str, seed: int, start: int = 0) -> Iterator[tuple[int, Example]]:
    """(index, example) of one kind from ``start`` on, held-out content skipped."""
    index = start
    while True:
        example = example_at("train", kind, seed, index)
        if example.key not in heldout_keys(kind):
            yield index, example
        index += 1


def chosen_weights(weights: dict[str, float], kinds: tuple[str, ...]) -> dict[str, float]:
    """The mix of some kinds; of all where none is named.

    Raises:
        DFlashError: a kind that does not exist.
    """
    for kind in kinds:
        if kind not in weights:
            raise DFlashError("kinds", f"has {kind!r}", f"choose among {','.join(weights)}")
    return {kind: weights[kind] for kind in kinds} if kinds else dict(weights)


class TrainingStream:
    """Draws chats of one or two turns by mix weights; its position can be saved and restored."""

    def __init__(self, seed: int, weights: dict[str, float] | None = None) -> None:
        self.seed = seed
        self.weights = dict(weights or dict.fromkeys(KINDS, 1.0))
        self.position = {kind: 0 for kind in KINDS}
        self.drawn = 0

    def state(self) -> dict:
        """Everything needed to continue the stream exactly."""
        return {
            "seed": self.seed,
            "weights": dict(self.weights),
            "position": dict(self.position),
            "drawn": self.drawn,
        }

    def load_state(self, state: dict) -> None:
        """Continue where ``state`` was taken."""
        self.seed, self.drawn = state["seed"], state["drawn"]
        self.weights, self.position = dict(state["weights"]), dict(state["position"])

    def next_example(self, kind: str) -> Example:
        """The next unseen example of a kind."""
        index, example = next(training_examples(kind, self.seed, self.position[kind]))
        self.position[kind] = index + 1
        return example

    def next_chat(self) -> tuple[str, Turns]:
        """(kind, turns) of the next chat."""
        rng = Random(f"mix/{self.seed}/{self.drawn}")
        self.drawn += 1
        names = list(self.weights)
        kind = rng.choices(names, [self.weights[n] for n in names])[0]
        first = self.next_example(kind)
        turns = [(first.question, first.answer)]
        if kind in _CHATTY and rng.random() < TWO_TURN_SHARE:
            again = rng.random() < 0.5
            others = [other for other in _CHATTY if other in self.weights]
            second = self.next_example(kind if again else rng.choice(others))
            ask = second.follow if again and second.follow and rng.random() < 0.6 else second.question
            turns.append((ask, second.answer))
        return kind, turns
