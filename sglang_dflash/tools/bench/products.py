"""``sglang-dflash bench products``: dense float32 projections on this host: torch's choice, oneDNN's, ours, packed.

Each shape is as many matrices as a model has layers, one after the other: a loop over a single matrix finds its weights
in the nearest cache, which a forward pass does not.
"""

import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import torch

from sglang_dflash.kernels import dense
from sglang_dflash.kernels.dense import naive, onednn
from sglang_dflash.kernels.dense.packed import PackedMatrix
from sglang_dflash.tools.bench.report import plain_table, show
from sglang_dflash.tools.serve.console import make_console

SHAPES = ((128, 768), (576, 960), (576, 3072), (1024, 4096), (3072, 1024))  # in, out: of 1.7M, 135M, 0.6B models
ROWS = (1, 8, 16, 128)
LAYERS = 8
TURNS = 20
TURN_SECONDS = 0.02


def run_products(threads: int) -> None:
    """Measure with ``threads`` threads of torch, and print the table."""
    torch.set_num_threads(threads)
    ways = naive.project, onednn.product, dense.choose("cpu", torch.float32).project
    table = plain_table()
    for name in (
        "rows",
        "in",
        "out",
        "torch us",
        "oneDNN us",
        "ours us",
        "packed us",
        "torch / ours",
        "torch / packed",
    ):
        table.add_column(name, justify="right")
    with torch.inference_mode():
        for inputs, outputs in SHAPES:
            for rows in ROWS:
                x, weights = torch.randn(rows, inputs), [torch.randn(outputs, inputs) for _ in range(LAYERS)]
                packed = [PackedMatrix(SimpleNamespace(weight=weight)) for weight in weights]
                works = [partial(in_turn, way, x, weights) for way in ways] + [partial(in_turn, multiply, x, packed)]
                times = [t / LAYERS for t in fastest(works)]
                ratios = f"{times[0] / times[2]:.2f}x", f"{times[0] / times[3]:.2f}x"
                figures = *(f"{t:.0f}" for t in times), *ratios
                table.add_row(str(rows), str(inputs), str(outputs), *figures, end_section=rows == ROWS[-1])
    show(make_console(), f"Dense float32 projections, fastest of {TURNS} turns", table)


def multiply(x: torch.Tensor, matrix: PackedMatrix) -> torch.Tensor:
    """The product with a packed weight."""
    return matrix.project(x)


def in_turn(way: Callable, x: torch.Tensor, weights: list) -> None:
    """The product of ``x`` with each of ``weights``."""
    for weight in weights:
        way(x, weight)


def fastest(works: list[Callable[[], object]]) -> list[float]:
    """Microseconds of each, in the fastest of turns that alternate."""
    counts, best = [], [float("inf")] * len(works)
    for work in works:
        work()
        start = time.perf_counter()
        work()
        counts.append(max(1, int(TURN_SECONDS / (time.perf_counter() - start))))
    for _ in range(TURNS):
        for which, (work, count) in enumerate(zip(works, counts, strict=True)):
            start = time.perf_counter()
            for _ in range(count):
                work()
            best[which] = min(best[which], 1e6 * (time.perf_counter() - start) / count)
    return best
