"""From turns to figures: medians per system and concurrency, ratios of medians, acceptance."""

from collections.abc import Iterable, Sequence
from statistics import mean, median
from typing import NamedTuple

from sglang_dflash.tools.bench.measure import Turn
from sglang_dflash.tools.bench.stages import stage_medians
from sglang_dflash.tools.bench.systems import LABELS
from sglang_dflash.tools.serve import Generation


class Acceptance(NamedTuple):
    """How the draft's tokens fared, over all rounds of some answers."""

    rounds: int
    accept_length: float | None  # mean commit length per round; None without rounds
    by_position: tuple[float, ...]  # share of rounds that kept draft position 1, 2, ...


class Cell(NamedTuple):
    """One system at one concurrency; medians over repetitions. None where not measured."""

    system: str
    concurrency: int
    tokens_per_second: float | None
    every_tokens_per_second: list[float]
    tokens_per_cpu_second: float | None  # of the scheduler process; None where it takes none that can be seen
    first_token_ms: float | None
    inter_token_ms: float | None
    round_ms: float | None  # between two arrivals of one streamed answer
    acceptance: Acceptance
    stages: dict[str, float]  # ms per round; empty where the worker does not time them


def acceptance(answers: Iterable[Generation]) -> Acceptance:
    """Acceptance over all rounds of the answers."""
    return kept_by_position(answer.correct_drafts_histogram for answer in answers)


def kept_by_position(histograms: Iterable[Sequence[int]]) -> Acceptance:
    """Acceptance from each answer's count of rounds that kept 0, 1, 2, ... draft tokens."""
    counts: list[int] = []
    for histogram in histograms:
        counts += [0] * (len(histogram) - len(counts))
        for number, count in enumerate(histogram):
            counts[number] += count
    rounds = sum(counts)
    if not rounds:
        return Acceptance(0, None, ())
    length = 1 + sum(number * count for number, count in enumerate(counts)) / rounds
    return Acceptance(rounds, length, tuple(sum(counts[n:]) / rounds for n in range(1, len(counts))))


def summarise(turns: Sequence[Turn]) -> list[Cell]:
    """One cell per system and concurrency, in the order measured."""
    keys = sorted({(turn.concurrency, turn.system) for turn in turns}, key=lambda key: (key[0], _rank(key[1])))
    return [_cell(system, concurrency, _matching(turns, system, concurrency)) for concurrency, system in keys]


def speedup(
    cells: Sequence[Cell], system: str, over: str, concurrency: int, figure: str = "tokens_per_second"
) -> float | None:
    """Ratio of the medians of ``figure``; None where one is missing."""
    pair = [_find(cells, name, concurrency) for name in (system, over)]
    values = [None if cell is None else getattr(cell, figure) for cell in pair]
    return None if None in values else values[0] / values[1]


def _find(cells, system, concurrency) -> Cell | None:
    return next((cell for cell in cells if (cell.system, cell.concurrency) == (system, concurrency)), None)


def _matching(turns, system, concurrency) -> list[Turn]:
    return [turn for turn in turns if (turn.system, turn.concurrency) == (system, concurrency)]


def _rank(system: str) -> int:
    return list(LABELS).index(system)


def _cell(system: str, concurrency: int, turns: list[Turn]) -> Cell:
    whole = [turn for turn in turns if not turn.streamed]
    streamed = [answer for turn in turns if turn.streamed for answer in turn.answers]
    speeds = [turn.tokens_per_second for turn in whole]
    efforts = [turn.tokens / turn.cpu_seconds for turn in whole if turn.cpu_seconds > 0]
    return Cell(
        system,
        concurrency,
        median(speeds) if speeds else None,
        speeds,
        median(efforts) if efforts else None,
        _median_ms(answer.time_to_first_token for answer in streamed),
        _median_ms(answer.inter_token_seconds for answer in streamed),
        _median_ms(gap for answer in streamed for gap in _gaps(answer)),
        acceptance(answer for turn in turns for answer in turn.answers),
        stage_medians([entry for turn in whole for entry in turn.rounds]),
    )


def _gaps(answer: Generation) -> list[float]:
    times = [arrival.at for arrival in answer.arrivals]
    return [later - earlier for earlier, later in zip(times, times[1:], strict=False)]


def _median_ms(seconds: Iterable[float | None]) -> float | None:
    known = [value for value in seconds if value is not None]
    return 1e3 * median(known) if known else None


def repeated_share(answers: Sequence[Generation], n: int = 4) -> float:
    """Mean share of n-grams that occurred before in the same answer: speculation is easy on text that repeats."""
    from sglang_dflash.tools.pair.checks import repeated_share as share

    return mean(share(answer.token_ids, n) for answer in answers)
