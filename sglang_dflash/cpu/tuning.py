"""What is measured on a model's own products when it is loaded: threads, and how one or two rows are multiplied."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import psutil
import torch

from sglang_dflash.kernels.dense import Matrix
from sglang_dflash.kernels.dense.packed import PackedMatrix

logger = logging.getLogger(__name__)

ROWS = (1, 16)  # of a plain step and of a verify pass
SECONDS = 0.6  # that choosing threads may take
SAMPLE_BYTES = 128 << 20  # of weights: more than caches hold
GAIN = 0.9  # of one thread's time, which more threads must not exceed: they take cores from other processes
PADDED_ROWS = 4
PADDED_ELEMENTS = 3 << 18  # of a matrix from which padding can pay


class Settings(NamedTuple):
    """What was found."""

    threads: int
    padded_rows: int  # to how many rows one and two are repeated for wide matrices; 1: as they are


_found: Settings | None = None  # by the first model of the process, the target; the draft's takes them over


def tune(matrices: Sequence[Matrix], ranks: int) -> None:
    """Set torch's threads for passes over ``matrices``, the large ones of this rank's model, and how they are run.

    OMP_NUM_THREADS is obeyed. Without large matrices it is one thread: small ones are not worth sharing.
    """
    global _found
    if _found is None:
        _found = measure(matrices, max(1, (psutil.cpu_count(logical=False) or 1) // ranks))
    torch.set_num_threads(_found.threads)
    for matrix in _wide(matrices):
        matrix.padded_rows = _found.padded_rows


@torch.inference_mode()
def measure(matrices: Sequence[Matrix], cores: int) -> Settings:
    """What is best for ``matrices`` on ``cores``; leaves torch's threads changed."""
    sample = _sample(matrices)
    asked = os.environ.get("OMP_NUM_THREADS")
    threads = int(asked) if asked else 1
    if sample and not asked and cores > 1:
        threads = fastest_threads(sample, candidates(cores))
    torch.set_num_threads(threads)
    wide = _wide(sample)
    return Settings(threads, PADDED_ROWS if wide and padding_pays(wide) else 1)


def _wide(matrices: Sequence[Matrix]) -> list[PackedMatrix]:
    return [m for m in matrices if isinstance(m, PackedMatrix) and m.weight.numel() >= PADDED_ELEMENTS]


def candidates(cores: int) -> list[int]:
    """Numbers of threads that are tried, ascending."""
    return sorted({1, max(1, cores // 2), max(1, cores - 1), cores})


def fastest_threads(sample: Sequence[Matrix], numbers: Sequence[int], clock: Callable = time.perf_counter) -> int:
    """The number of threads that ``sample`` is multiplied by fastest, one unless others are clearly faster.

    Numbers take turns; the fastest turn of each counts, at 1 and at 16 rows.
    """
    inputs = {rows: [_rows(matrix, rows) for matrix in sample] for rows in ROWS}
    best = dict.fromkeys([(number, rows) for number in numbers for rows in ROWS], float("inf"))
    start = clock()
    while clock() - start < SECONDS or float("inf") in best.values():
        for number, rows in best:
            torch.set_num_threads(number)
            best[number, rows] = min(best[number, rows], _seconds(sample, inputs[rows], clock))
    times = {number: sum(best[number, rows] for rows in ROWS) for number in numbers}
    fastest = min(times, key=lambda number: (times[number], number))
    logger.info("CPU platform: products by threads, ms: %s", {n: round(1e3 * t, 1) for n, t in times.items()})
    return fastest if times[fastest] < GAIN * times[numbers[0]] else numbers[0]


def padding_pays(sample: Sequence[PackedMatrix], clock: Callable = time.perf_counter) -> bool:
    """Whether ``PADDED_ROWS`` rows are faster than one."""
    inputs = [_rows(matrix, 1) for matrix in sample]
    best = {1: float("inf"), PADDED_ROWS: float("inf")}
    for _ in range(5):
        for rows in best:
            for matrix in sample:
                matrix.padded_rows = rows
            best[rows] = min(best[rows], _seconds(sample, inputs, clock))
    for matrix in sample:
        matrix.padded_rows = 1
    return best[PADDED_ROWS] < best[1]


def _sample(matrices: Sequence[Matrix]) -> list[Matrix]:
    sample, size = [], 0
    for matrix in matrices:
        if size < SAMPLE_BYTES:
            sample.append(matrix)
            size += matrix.weight.numel() * matrix.weight.element_size()
    return sample


def _rows(matrix: Matrix, rows: int) -> torch.Tensor:
    return torch.ones(rows, matrix.weight.shape[1], dtype=matrix.weight.dtype)


def _seconds(sample: Sequence[Matrix], inputs: Sequence[torch.Tensor], clock: Callable) -> float:
    start = clock()
    for matrix, x in zip(sample, inputs, strict=True):
        matrix.project(x)
    return clock() - start
