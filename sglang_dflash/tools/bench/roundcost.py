"""What one decode round does, ours beside the built-in worker's: ``sglang-dflash bench cost``.

Starts both workers on one pair with ``SGLANG_DFLASH_COUNTS`` set, sends a few greedy requests, and takes
medians over the rounds. Counts need no clock, so a busy machine gives the same table as an idle one.
"""

import json
import platform
import shlex
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.bench.prompts import load_prompts
from sglang_dflash.tools.serve import ServerProcess, ServerSpec

SYSTEMS = ("builtin", "dflash")
PARTS = ("target", "draft", "worker")
COUNTS = ("launches", "allocations", "copies", "syncs")
# Long enough for some rounds of every size.
NEW_TOKENS = 96

Medians = dict[str, dict[str, float]]  # part -> count -> median per round


def run_round_cost(
    target: str, draft: str, prompts: Path, batch_sizes: str, server_flags: str, operations: bool, out: Path
) -> None:
    """Count launches, allocations, copies and syncs of a decode round, ours beside the built-in worker's.

    Prints the tables and writes ``out``; ``operations``: the worker's by name as well.
    """
    sizes = _sizes(batch_sizes)
    questions = [prompt.token_ids for prompt in load_prompts(target, prompts, per_kind=1)]
    if len(questions) < max(sizes):
        raise DFlashError("batch_sizes", f"asks for {max(sizes)} prompts of {len(questions)}", "give smaller ones")
    result = {"sizes": sizes, "systems": {}}
    for system in SYSTEMS:
        spec = ServerSpec(target, draft, system, tuple(shlex.split(server_flags)))
        rounds = count_rounds(spec, questions, sizes)
        result["systems"][system] = {
            str(size): {
                "rounds": len(of_size(rounds, size)),
                "parts": medians(of_size(rounds, size), "parts", PARTS),
                "operations": medians(of_size(rounds, size), "operations", PARTS),
            }
            for size in sizes
        }
    result["environment"] = _environment(spec)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    console = Console(width=100)
    console.print(cost_table(result))
    if operations:
        console.print(operations_table(result))
    console.print(f"{out} holds every operation by name.", highlight=False)


def count_rounds(spec: ServerSpec, questions: Sequence[Sequence[int]], sizes: Sequence[int]) -> list[dict]:
    """Rows that the worker of ``spec`` wrote, one per decode round, over batches of each size."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "counts.jsonl"
        sampling = {"temperature": 0.0, "max_new_tokens": NEW_TOKENS, "ignore_eos": True}
        with ServerProcess(spec.with_env(SGLANG_DFLASH_COUNTS=str(path))) as server:
            # The first answer fills caches that live as long as the server.
            server.client.generate(questions[-1], sampling)
            warm_up = len(path.read_text().splitlines())
            for size in sizes:
                server.client.generate_many(questions[:size], size, sampling)
        return [json.loads(line) for line in path.read_text().splitlines()[warm_up:]]


def of_size(rounds: Sequence[Mapping], size: int) -> list[Mapping]:
    """The rounds of ``size`` requests; DFlashError where there is none."""
    found = [row for row in rounds if row["bs"] == size]
    if not found:
        raise DFlashError("batch_sizes", f"no round had {size} requests", "give a size that the server can hold")
    return found


def medians(rounds: Sequence[Mapping], field: str, parts: Sequence[str]) -> Medians:
    """Median per round of everything that ``field`` counts, by part."""
    result: Medians = {}
    for part in parts:
        rows = [row[field].get(part, {}) for row in rounds]
        names = sorted({name for row in rows for name in row})
        result[part] = {name: statistics.median(row.get(name, 0) for row in rows) for name in names}
    return result


def cost_table(result: Mapping) -> Table:
    """One row per batch size, part and system, and their sums."""
    table = Table(title="One decode round, median", title_justify="left")
    for name in ("requests", "part", "worker", *COUNTS):
        table.add_column(name, justify="right" if name in COUNTS or name == "requests" else "left")
    for size in result["sizes"]:
        for part in (*PARTS, "all"):
            for system in SYSTEMS:
                counts = result["systems"][system][str(size)]["parts"]
                values = _total(counts) if part == "all" else counts[part]
                table.add_row(str(size), part, system, *(f"{values.get(name, 0):g}" for name in COUNTS))
            table.add_section()
    return table


def operations_table(result: Mapping) -> Table:
    """The worker part's operations by name, per round."""
    table = Table(title="Operations outside the two models' passes", title_justify="left")
    columns = [(size, system) for size in result["sizes"] for system in SYSTEMS]
    table.add_column("operation")
    for size, system in columns:
        table.add_column(f"{system}, {size}", justify="right")
    found = [result["systems"][system][str(size)]["operations"]["worker"] for size, system in columns]
    for name in sorted({name for row in found for name in row}):
        table.add_row(name, *(f"{row.get(name, 0):g}" for row in found))
    return table


def _total(counts: Medians) -> dict[str, float]:
    return {name: sum(counts[part].get(name, 0) for part in PARTS) for name in COUNTS}


def _sizes(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdigit() and int(word) > 0 for word in words):
        raise DFlashError("batch_sizes", f"is {text!r}", "give positive numbers, comma-separated")
    return [int(word) for word in words]


def _environment(spec: ServerSpec) -> dict[str, str]:
    return {
        "command": shlex.join(["sglang-dflash", "bench", "cost", *sys.argv[1:]]),
        "server": shlex.join(spec.command(0)[1:]),
        "machine": platform.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("sglang", "sglang-dflash", "torch")},
    }
