"""``sglang-dflash bench passes``: plain steps and rounds on a CPU beside the target's products alone.

Two servers, plain and ours, and this process take turns: an answer of each server at every number of requests, then all
matrix products of one target pass, by torch's choice of library and with packed weights. Servers time themselves
(``SGLANG_DFLASH_TIMINGS``), so that HTTP is in none of the figures.
"""

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import NamedTuple

import psutil
import torch
from rich.table import Table

from sglang_dflash.errors import DFlashError
from sglang_dflash.kernels.dense import naive
from sglang_dflash.kernels.dense.packed import MIN_ELEMENTS, PackedMatrix
from sglang_dflash.tools.bench.report import plain_table, show
from sglang_dflash.tools.bench.stages import StageLog
from sglang_dflash.tools.bench.stepcost import fastest
from sglang_dflash.tools.serve import ServerProcess, ServerSpec
from sglang_dflash.tools.serve.console import make_console

PROMPT = range(20, 52)  # token ids that every vocabulary has
FLAGS = ("--dtype", "float32", "--max-total-tokens", "8192")


class PassCost(NamedTuple):
    """Milliseconds of one kind of pass: the median, and the fastest twentieth, an idle machine's."""

    what: str  # "step", "verify" or "round"
    requests: int
    rows: int  # of the target's pass
    torch: float  # its products, fastest, by torch's choice
    packed: float  # with packed weights
    middle: float
    best: float


class Products:
    """The matrices of one target pass, random ones of its sizes: as they lie, and packed where the platform packs."""

    def __init__(self, folder: str):
        self.weights = [torch.randn(rows, columns) for rows, columns in shapes(folder)]
        layers = [SimpleNamespace(weight=weight) for weight in self.weights]
        self.packed = [PackedMatrix(layer) for layer in layers if layer.weight.numel() >= MIN_ELEMENTS]
        self.small = [weight for weight in self.weights if weight.numel() < MIN_ELEMENTS]

    @torch.inference_mode()
    def turn(self, rows: int, times: dict) -> None:
        """One pass of ``rows`` rows by torch and one packed; keeps the fastest milliseconds in ``times``."""
        inputs = {weight.shape[1]: torch.randn(rows, weight.shape[1]) for weight in self.weights}
        for padded in (1, 4):
            for matrix in self.packed:
                matrix.padded_rows = padded
            _keep(times, ("packed", rows), self._packed_pass, inputs)
        _keep(times, ("torch", rows), self._plain_pass, inputs, self.weights)

    def _packed_pass(self, inputs) -> None:
        for matrix in self.packed:
            matrix.project(inputs[matrix.weight.shape[1]])
        self._plain_pass(inputs, self.small)

    def _plain_pass(self, inputs, weights) -> None:
        for weight in weights:
            naive.project(inputs[weight.shape[1]], weight)


def _keep(times: dict, key, work, *arguments) -> None:
    start = time.perf_counter()
    work(*arguments)
    times[key] = min(times.get(key, float("inf")), 1e3 * (time.perf_counter() - start))


def shapes(folder: str) -> list[tuple[int, int]]:
    """Rows and columns of every matrix of a pass over the checkpoint in ``folder``: attention, feed-forward, head.

    Raises:
        DFlashError: not a dense decoder with a gated feed-forward.
    """
    config = json.loads((Path(folder) / "config.json").read_text())
    if config["model_type"] not in ("llama", "mistral", "qwen2", "qwen3"):
        raise DFlashError("target", f"is a {config['model_type']} model", "give a Llama, Mistral, Qwen2 or Qwen3")
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    dim = config.get("head_dim") or hidden // heads
    joint = (heads + 2 * config["num_key_value_heads"]) * dim
    layer = [(joint, hidden), (hidden, heads * dim), (2 * inner, hidden), (hidden, inner)]
    return config["num_hidden_layers"] * layer + [(config["vocab_size"], hidden)]


def run_pass_cost(
    target: str,
    draft: str,
    block_size: int | None,
    requests: Sequence[int],
    threads: int,
    tokens: int,
    turns: int,
    out: Path,
) -> None:
    """Measure and print; ``out`` is the JSON file. ``threads``: of the servers and of the products, 0: all cores."""
    threads = threads or psutil.cpu_count(logical=False) or 1
    torch.set_num_threads(threads)
    costs = measure(target, draft, block_size, requests, threads, tokens, turns)
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = [cost._asdict() for cost in costs]
    found = {"target": target, "threads": threads, "torch": torch.__version__, "passes": rows}
    out.write_text(json.dumps(found, indent=1) + "\n")
    show(make_console(), f"Passes and products, milliseconds, {threads} thread(s)", table_of(costs))


def measure(
    target: str,
    draft: str,
    block_size: int | None,
    requests: Sequence[int],
    threads: int,
    tokens: int,
    turns: int,
) -> list[PassCost]:
    """The cost of a plain step, a verify pass and a round at every number of ``requests``."""
    block = block_size or json.loads((Path(draft) / "config.json").read_text())["block_size"]
    times: dict = {}
    with tempfile.TemporaryDirectory() as folder:
        logs = {name: StageLog(Path(folder) / f"{name}.jsonl") for name in ("plain", "dflash")}
        width = ("--speculative-num-draft-tokens", str(block))
        specs = ServerSpec(target, flags=FLAGS), ServerSpec(target, draft, "dflash", (*FLAGS, *width))
        timed = {
            spec.worker: spec.with_env(OMP_NUM_THREADS=str(threads), SGLANG_DFLASH_TIMINGS=str(logs[spec.worker].path))
            for spec in specs
        }
        with ServerProcess(timed["plain"]) as plain, ServerProcess(timed["dflash"]) as ours:
            products = Products(target)
            for turn in range(turns + 1):
                if turn == 1:  # the first turn fills caches
                    marks = {name: log.mark() for name, log in logs.items()}
                for count in requests:
                    for server in (plain, ours):
                        _answers(server.client, count, tokens)
                    for rows in (count, count * block):
                        products.turn(rows, times)
            _answers(plain.client, 1, 1)  # the clock writes what it holds when another prefill comes
            steps, rounds = (logs[name].since(marks[name]) for name in ("plain", "dflash"))
    return [cost for count in requests for cost in _costs(count, block, steps, rounds, times)]


def _answers(client, count: int, tokens: int) -> None:
    sampling = {"temperature": 0.0, "max_new_tokens": tokens, "ignore_eos": True}
    prompts = [[token + 7 * i for token in PROMPT] for i in range(count)]
    client.generate_many(prompts, count, sampling)


def _costs(count: int, block: int, steps: Sequence[dict], rounds: Sequence[dict], times: dict) -> list[PassCost]:
    found = {
        ("step", count): [step["step_ms"] for step in steps if step["requests"] == count],
        ("verify", count * block): [entry["stages"]["verify"] for entry in rounds if entry["bs"] == count],
        ("round", count * block): [entry["round"] for entry in rounds if entry["bs"] == count and entry["round"]],
    }
    if not all(found.values()):
        raise DFlashError("requests", f"{count} were not in flight together", "give fewer, or longer answers")
    return [
        PassCost(what, count, rows, times["torch", rows], times["packed", rows], median(ms), fastest(ms))
        for (what, rows), ms in found.items()
    ]


def table_of(costs: Sequence[PassCost]) -> Table:
    """One row per kind of pass; ratios are of the fastest twentieths and the fastest products."""
    table = plain_table()
    for name in ("pass", "requests", "rows", "torch", "packed", "median", "fastest 5%", "/ packed", "/ step at 1"):
        table.add_column(name, justify="left" if name == "pass" else "right")
    step = next((cost.best for cost in costs if cost.what == "step" and cost.requests == 1), None)
    for cost in costs:
        figures = (cost.torch, cost.packed, cost.middle, cost.best)
        over_products = "" if cost.what == "round" else f"{cost.best / cost.packed:.2f}x"
        over_step = "" if step is None or cost.what == "verify" else f"{cost.best / step:.2f}x"
        sizes = (cost.what, str(cost.requests), str(cost.rows))
        table.add_row(
            *sizes, *(f"{ms:.1f}" for ms in figures), over_products, over_step, end_section=cost.what == "round"
        )
    return table
