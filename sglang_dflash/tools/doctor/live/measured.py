"""Accept length of some answers, all in all and by position."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """Rounds of several answers. ``kept`` [B]: how many rounds kept 0, 1, 2, ... draft tokens."""

    tokens: int  # all answers' tokens less their first, which prefill gives
    rounds: int
    kept: tuple[int, ...]

    @property
    def accept_length(self) -> float:
        """Mean commit length per round; 0 where nothing was decoded."""
        return self.tokens / self.rounds if self.rounds else 0.0

    @property
    def by_position(self) -> tuple[float, ...]:
        """P(draft token i is kept), for i = 1 .. B - 1."""
        total = sum(self.kept)
        return tuple(sum(self.kept[i:]) / total for i in range(1, len(self.kept))) if total else ()

    def as_dict(self) -> dict:
        """For JSON."""
        return {
            "accept_length": round(self.accept_length, 3),
            "by_position": [round(value, 3) for value in self.by_position],
            "tokens": self.tokens,
            "rounds": self.rounds,
        }


def measured(answers: Sequence[int], kept: Sequence[Sequence[int]], block_size: int) -> Measured:
    """From the answers' token counts, and for each answer how many draft tokens each round kept."""
    counts = [0] * block_size
    for rounds in kept:
        for number in rounds:
            counts[number] += 1
    return Measured(sum(answers) - len(answers), sum(counts), tuple(counts))
