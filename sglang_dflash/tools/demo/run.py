"""``sglang-dflash demo``: start real servers, show, measure, stop."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from sglang_dflash.tools.bench.equality import compare
from sglang_dflash.tools.bench.measure import Plan, measure
from sglang_dflash.tools.bench.progress import batches
from sglang_dflash.tools.bench.prompts import Prompt, kinds_in, load_prompts, prompt_room
from sglang_dflash.tools.bench.report import POSITIONS, equality_line, number, plain_table, position_table, show
from sglang_dflash.tools.bench.stages import StageLog
from sglang_dflash.tools.bench.summary import Cell, speedup, summarise
from sglang_dflash.tools.bench.systems import LABELS, build_specs, fitting, pool_flags
from sglang_dflash.tools.demo.show import show_question
from sglang_dflash.tools.pair.kinds import FREE_KINDS
from sglang_dflash.tools.serve import WORKERS
from sglang_dflash.tools.serve.console import make_console, started
from sglang_dflash.tools.serve.log import log_folder

# Unlike each other under speculation: arithmetic, code, copying, a chat, prose.
SHOWN_KINDS = ("add", "py", "csv", "chat", "prose", "table", "day", "words", "seq", "sort")
CONCURRENCIES = (1, 8)


class DemoOptions(NamedTuple):
    """What the command line asked for."""

    target: str
    draft: str
    prompts: Sequence[Path]
    questions: int
    measured: int
    max_tokens: int
    repeats: int


def run_demo(options: DemoOptions) -> bool:
    """The whole tour; False where any answer differed."""
    console = make_console()
    begun = time.monotonic()
    kinds = kinds_in(options.prompts)
    room = prompt_room(options.target, options.max_tokens)
    shown = _questions(options, kinds, room)
    fixed = [kind for kind in kinds if kind not in FREE_KINDS]
    per_kind = -(-options.measured // len(fixed))
    measured = load_prompts(options.target, options.prompts, fixed, per_kind, room=room, say=console.print)
    measured = measured[: options.measured]
    systems = fitting(WORKERS)
    if systems != WORKERS:
        console.print("Not enough free memory for three servers: the built-in worker is left out.")
    pool = pool_flags([*shown, *measured], max(CONCURRENCIES), options.max_tokens)
    specs = build_specs(systems, options.target, options.draft, pool, exact=True)
    for name, spec in specs.items():
        console.print(f"{LABELS[name]}: python {' '.join(spec.command(0)[1:8])} ...", soft_wrap=True)
    with log_folder() as folder:
        with started({LABELS[name]: spec for name, spec in specs.items()}, console, folder) as labelled:
            servers = {name: labelled[LABELS[name]] for name in specs}
            console.print(f"{len(servers)} servers are ready after {time.monotonic() - begun:.0f} s")
            clients = {name: servers[name].client for name in ("plain", "dflash")}
            # First requests pay for what is set up lazily.
            for client in clients.values():
                client.generate(measured[0].token_ids, {"temperature": 0.0, "max_new_tokens": 8})
            same = [show_question(console, prompt, clients, options.max_tokens) for prompt in shown]
            console.print()
            alike = _measured(console, servers, measured, options, folder)
    console.print(f"Every server is stopped. This took {time.monotonic() - begun:.0f} s.")
    return all(same) and alike


def _questions(options: DemoOptions, kinds: Sequence[str], room: int) -> list[Prompt]:
    wanted = [kind for kind in SHOWN_KINDS if kind in kinds] or list(kinds)
    per_kind = -(-options.questions // len(wanted))
    wanted = wanted[: options.questions]
    # What is left out is said of the measured ones.
    found = load_prompts(options.target, options.prompts, wanted, per_kind, room=room, say=lambda line: None)
    return found[: options.questions]


def _measured(console: Console, servers, prompts: Sequence[Prompt], options: DemoOptions, folder: Path) -> bool:
    plan = Plan(CONCURRENCIES, options.repeats, streamed=0)
    with batches(console) as progress:
        greedy = {"temperature": 0.0, "max_new_tokens": options.max_tokens}
        turns = measure(servers, prompts, plan, greedy, StageLog(folder / "none"), progress)
    comparison = compare(turns, prompts, servers["plain"].client)
    cells = summarise(turns)
    title = f"{len(prompts)} questions, answers of at most {options.max_tokens} tokens, medians of {options.repeats}"
    show(console, title, _speeds(cells, not comparison.wrong))
    show(console, POSITIONS, position_table(cells))
    console.print()
    console.print(equality_line(comparison), style="bold green" if not comparison.wrong else "bold red")
    return not comparison.wrong


def _speeds(cells: Sequence[Cell], same: bool) -> Table:
    table = plain_table()
    table.add_column("in flight", justify="right")
    table.add_column("system", no_wrap=True)
    for name in ("tokens/s", "speed-up", "accept length"):
        table.add_column(name, justify="right")
    for cell in cells:
        table.add_row(
            str(cell.concurrency),
            LABELS[cell.system],
            number(cell.tokens_per_second, 0),
            number(speedup(cells, cell.system, "plain", cell.concurrency) if same else None, 2, "x"),
            number(cell.acceptance.accept_length, 2),
            end_section=cell.system == "dflash",
        )
    return table
