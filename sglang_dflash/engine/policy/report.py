"""What an adaptive server's rounds were expected to bring and what they brought, by shape."""

from collections.abc import Sequence
from dataclasses import dataclass

from sglang_dflash.engine.policy.choice import Forecast
from sglang_dflash.types import Shape


@dataclass
class Sums:
    """Over all rounds of a shape; times only where a round's end was seen."""

    rounds: int = 0
    tokens: int = 0
    expected_tokens: float = 0.0
    timed: int = 0
    ms: float = 0.0
    expected_ms: float = 0.0


class Report:
    """Read it at any time: ``sums`` by shape, or ``table``."""

    def __init__(self, shapes: Sequence[Shape]):
        self.sums = {shape: Sums() for shape in shapes}
        self.rounds = 0

    def emitted(self, shape: Shape, tokens: int, expected: Forecast) -> None:
        """A round's tokens, all requests together."""
        sums = self.sums[shape]
        self.rounds += 1
        sums.rounds += 1
        sums.tokens += tokens
        sums.expected_tokens += expected.tokens

    def took(self, shape: Shape, ms: float, expected: Forecast) -> None:
        """A round's time, from its start to that of the next."""
        sums = self.sums[shape]
        sums.timed += 1
        sums.ms += ms
        sums.expected_ms += expected.ms

    def table(self) -> str:
        """One line a shape: rounds, tokens and milliseconds a round, and what was expected of both."""
        lines = [f"{'shape':>10} {'rounds':>8} {'tokens':>8} {'expected':>8} {'ms':>8} {'expected':>8}"]
        for shape, sums in self.sums.items():
            if sums.rounds:
                tokens = sums.tokens / sums.rounds, sums.expected_tokens / sums.rounds
                timed = max(sums.timed, 1)
                figures = (*tokens, sums.ms / timed, sums.expected_ms / timed)
                lines.append(f"{shape.label:>10} {sums.rounds:8d} " + " ".join(f"{figure:8.2f}" for figure in figures))
        return "\n".join(lines)
