"""A plain decode step beside the bare forward pass of the same model: ``sglang-dflash bench step``.

Starts a plain server, then takes turns: one request over HTTP, as many bare steps in this process. Prints the
ratio of the medians, and from the server's own clock how a step divides into model and everything else.
"""

import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.bench.bare import BareQwen3
from sglang_dflash.tools.serve import ServerProcess, ServerSpec

PROMPT = list(range(10, 26))  # any token ids that every vocabulary has


class StepCost(NamedTuple):
    """Milliseconds per decode step at concurrency 1, medians; ``_cpu``: the thread's processor time.

    Wall times tell what a user waits. On a machine that is busy elsewhere even processor times swell, by cold
    caches and by as much as two; ``_best`` is the fastest twentieth of the processor times, an idle machine's.
    """

    bare: float  # the plain functional pass, head and argmax included
    bare_cpu: float
    bare_best: float
    served: float  # a token over HTTP, after the first
    step: float  # a step of the scheduler process
    step_cpu: float
    step_best: float
    model: float  # of it in the model
    model_cpu: float
    model_best: float
    same_tokens: bool  # the server's tokens equal the bare pass's

    @property
    def ratio_served(self) -> float:
        """A token over HTTP over a bare pass, both wall: all of the server's processes compete for the cores."""
        return self.served / self.bare

    @property
    def ratio(self) -> float:
        """A step of the scheduler over a bare pass, both wall."""
        return self.step / self.bare

    @property
    def ratio_cpu(self) -> float:
        """The same in processor time."""
        return self.step_cpu / self.bare_cpu

    @property
    def ratio_best(self) -> float:
        """The same of the fastest twentieths."""
        return self.step_best / self.bare_best


def run_step_cost(target: str, tokens: int, turns: int, out: Path) -> None:
    """Measure a plain decode step beside the bare forward pass of the same model; print it, and write ``out``."""
    cost = measure(target, tokens, turns)
    out.parent.mkdir(parents=True, exist_ok=True)
    result = {
        **cost._asdict(),
        "ratio": cost.ratio,
        "ratio_served": cost.ratio_served,
        "ratio_cpu": cost.ratio_cpu,
        "ratio_best": cost.ratio_best,
        "target": target,
        "tokens": tokens,
        "turns": turns,
        "torch": torch.__version__,
    }
    out.write_text(json.dumps(result, indent=1) + "\n")
    Console(width=100).print(table_of(cost))


def measure(target: str, tokens: int, turns: int) -> StepCost:
    """Start a plain server on ``target`` and take ``turns`` turns of ``tokens`` decode steps.

    Raises:
        DFlashError: the target is not a Qwen3 checkpoint that the bare pass can run.
    """
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    bare_model = BareQwen3(target, len(PROMPT) + tokens + 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "steps.jsonl"
        path.touch()
        spec = ServerSpec(target, flags=("--dtype", "float32")).with_env(SGLANG_DFLASH_TIMINGS=str(path))
        bare, served, same = [], [], True
        with ServerProcess(spec) as server:
            answer(server.client, tokens)
            for _ in range(turns):
                # The difference of two answers: what is paid once a request drops out.
                one, whole = answer(server.client, 1), answer(server.client, tokens)
                served.append(1e3 * (whole.seconds - one.seconds) / (tokens - 1))
                times, produced = bare_turn(bare_model, tokens)
                bare += times
                same &= list(whole.token_ids) == produced
            # The clock writes what it holds when another prefill comes.
            answer(server.client, 1)
        steps = [json.loads(line) for line in path.read_text().splitlines()]
    if not steps:
        raise DFlashError("steps", "were not timed by the server", "run it on the CPU platform")
    middle = {name: statistics.median(step[name] for step in steps) for name in steps[0]}
    return StepCost(
        bare=1e3 * statistics.median(wall for wall, _ in bare),
        bare_cpu=1e3 * statistics.median(cpu for _, cpu in bare),
        bare_best=1e3 * fastest(cpu for _, cpu in bare),
        served=statistics.median(served),
        step=middle["step_ms"],
        step_cpu=middle["step_cpu_ms"],
        step_best=fastest(step["step_cpu_ms"] for step in steps),
        model=middle["forward_ms"],
        model_cpu=middle["forward_cpu_ms"],
        model_best=fastest(step["forward_cpu_ms"] for step in steps),
        same_tokens=same,
    )


def fastest(times) -> float:
    """The twentieth of ``times`` that is fastest: its upper end."""
    ordered = sorted(times)
    return ordered[len(ordered) // 20]


def answer(client, tokens: int):
    """A greedy answer of ``tokens`` tokens to ``PROMPT``."""
    return client.generate(PROMPT, {"temperature": 0.0, "max_new_tokens": tokens, "ignore_eos": True})


def bare_turn(model: BareQwen3, tokens: int) -> tuple[list[tuple[float, float]], list[int]]:
    """(Wall, processor) seconds of each decode step, and the tokens, of a greedy answer to ``PROMPT``."""
    token, times, produced = None, [], []
    for position in range(len(PROMPT) + tokens - 1):
        given = torch.tensor([PROMPT[position]]) if position < len(PROMPT) else token
        wall, cpu = time.perf_counter(), time.thread_time()
        token = model.step(given, position)
        if position >= len(PROMPT):
            times.append((time.perf_counter() - wall, time.thread_time() - cpu))
        if position >= len(PROMPT) - 1:
            produced.append(int(token))
    return times, produced


def table_of(cost: StepCost) -> Table:
    """The cost as a table for the console."""
    table = Table(title="One plain decode step, milliseconds (medians)")
    for name in ("what", "wall", "processor", "fastest 5%"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for name, wall, cpu, best in (
        ("bare torch forward pass", cost.bare, cost.bare_cpu, cost.bare_best),
        ("served, per token over HTTP", cost.served, None, None),
        ("  a step of the scheduler", cost.step, cost.step_cpu, cost.step_best),
        ("    of it in the model", cost.model, cost.model_cpu, cost.model_best),
    ):
        table.add_row(name, *("" if value is None else f"{value:.3f}" for value in (wall, cpu, best)))
    ratios = (cost.ratio, cost.ratio_cpu, cost.ratio_best)
    table.add_row("step / bare", *(f"{ratio:.2f}x" for ratio in ratios))
    table.add_row("HTTP / bare", f"{cost.ratio_served:.2f}x")
    table.add_row("same tokens", "yes" if cost.same_tokens else "NO")
    return table
