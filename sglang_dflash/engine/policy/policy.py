"""What chooses a round's shape: an object, itself chosen once at start."""

import random
from collections.abc import Sequence

from sglang_dflash.types import Shape


class Fixed:
    """Every round has one shape. Costs nothing."""

    def __init__(self, shape: Shape):
        self._shape = shape

    def choose(self, batch) -> Shape:
        """The shape of the next round, for SGLang's ``batch`` that decodes."""
        return self._shape

    def interrupted(self) -> None:
        """Something else than a round runs now: the time until the next round is not one round's."""

    def emitted(self, correct_drafts: Sequence[int]) -> None:
        """The oldest round not heard of yet kept ``correct_drafts`` [bs]: known on the host by now, maybe late."""


class Random(Fixed):
    """A shape by chance for every round: what tests need. All ranks draw alike."""

    def __init__(self, shapes: Sequence[Shape], seed: int = 0):
        self._shapes, self._random = tuple(shapes), random.Random(seed)

    def choose(self, batch) -> Shape:
        """Any of the set, each as likely."""
        return self._random.choice(self._shapes)
