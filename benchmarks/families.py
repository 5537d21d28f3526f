"""What a decode round costs for each architecture family: ours, the built-in worker's, and a plain step.

    .venv/bin/python benchmarks/families.py [family ...] [--repeats N]

The tiny random checkpoints of tests/families are served on the CPU platform, three systems side by side that take
turns. A figure is processor time of the scheduler process per step or round, one request in flight: long answers less
short ones over the rounds between them, the median over repetitions. Random drafts are nearly never right, so a
round commits about one token: what is compared is what a round costs, not what it yields. The drafts take the layer
before the last instead of the last one, which SGLang's own worker cannot capture.
"""

import argparse
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "families"), str(ROOT / "tests" / "e2e")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

from checkpoints import build_pair  # noqa: E402
from launcher import ForkLauncher  # noqa: E402
from table import FAMILIES  # noqa: E402

from sglang_dflash.errors import DFlashError  # noqa: E402
from sglang_dflash.tools.serve import ServerProcess, ServerSpec  # noqa: E402

SYSTEMS = ("plain", "builtin", "dflash")
SHORT, LONG = 16, 112  # tokens of an answer
PROMPTS = [tuple(range(20 + i, 60 + i)) for i in range(3)]
SCHEDULER = 1  # of a server's processes; the launcher starts it first


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("family", nargs="*", help="default: all of them")
    arguments.add_argument("--repeats", type=int, default=7)
    chosen = arguments.parse_args()
    launcher = ForkLauncher()
    print("| family | plain step ms | built-in round ms | our round ms | ours / plain step | ours / built-in |")
    print("|---|---|---|---|---|---|")
    try:
        for family in FAMILIES:
            if not chosen.family or family.name in chosen.family:
                print(row(family, chosen.repeats, launcher), flush=True)
    finally:
        launcher.close()


def row(family, repeats: int, launcher) -> str:
    """One line of the table."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        layers = family.config().get_text_config().num_hidden_layers
        taps = tuple(sorted({min(layer, layers - 2) for layer in family.taps}))
        target, draft = build_pair(replace(family, taps=taps), folder)
        servers, reasons = {}, {}
        for system in SYSTEMS:
            spec = ServerSpec(str(target), None if system == "plain" else str(draft), system)
            spec = spec.with_flags(*family.flags).with_env(**family.env)
            try:
                servers[system] = stack.enter_context(ServerProcess(spec, folder, launcher=launcher.launch))
            except DFlashError as error:
                reasons[system] = error
        figures = {system: [] for system in SYSTEMS}
        for turn in range(repeats + 1):
            for system, server in servers.items():
                try:
                    figure = per_round(server)
                except DFlashError as error:
                    reasons[system] = error
                    continue
                if turn:  # the first one warms up
                    figures[system].append(figure)
    plain, builtin, ours = (statistics.median(figures[name]) if figures[name] else None for name in SYSTEMS)
    for system, reason in reasons.items():
        print(f"{family.name}: {system}: {reason}", file=sys.stderr)
    cells = [shown(plain), shown(builtin), shown(ours), ratio(ours, plain), ratio(ours, builtin)]
    return f"| {family.name} | {' | '.join(cells)} |"


def per_round(server) -> float:
    """Milliseconds of processor time of one round, or of one plain step."""
    (less, few), (more, many) = (spent(server, length) for length in (SHORT, LONG))
    return 1e3 * (more - less) / (many - few)


def spent(server, length: int) -> tuple[float, int]:
    """Processor seconds and decode passes of every prompt's answer of ``length`` tokens."""
    sampling = {"temperature": 0.0, "max_new_tokens": length, "ignore_eos": True}
    before = server.processes()[SCHEDULER].cpu_times()
    answers = [server.client.generate(prompt, sampling) for prompt in PROMPTS]
    after = server.processes()[SCHEDULER].cpu_times()
    passes = sum(answer.rounds or len(answer.token_ids) - 1 for answer in answers)
    return after.user + after.system - before.user - before.system, passes


def shown(value: float | None) -> str:
    return "does not run" if value is None else f"{value:.2f}"


def ratio(value: float | None, over: float | None) -> str:
    return "" if value is None or over is None else f"{value / over:.2f}x"


if __name__ == "__main__":
    main()
