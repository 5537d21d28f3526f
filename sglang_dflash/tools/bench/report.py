"""Tables for the terminal and rows for JSON."""

from collections.abc import Collection, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sglang_dflash.tools.bench.equality import Comparison
from sglang_dflash.tools.bench.summary import Cell, speedup
from sglang_dflash.tools.bench.systems import HUB, LABELS

MISSING = "n/a"
POSITIONS = "Share of rounds that kept draft position"


def number(value: float | None, digits: int = 1, unit: str = "") -> str:
    """``value`` rounded, or n/a."""
    return MISSING if value is None else f"{value:.{digits}f}{unit}"


def plain_table() -> Table:
    """An empty table in the house style."""
    return Table(box=SIMPLE_HEAD, padding=(0, 0, 0, 1), show_edge=False)


def show(console: Console, title: str, table: Table | None) -> None:
    """A table under its title; nothing for None."""
    if table is not None:
        console.print(f"\n{title}", style="bold")
        console.print(table)


def ratios(cells: Sequence[Cell], wrong: Collection[str] = ()) -> list[dict]:
    """Every speed-up that the cells allow: over plain, ours over the built-in worker and over transformers.

    wrong: systems whose answers were, which are compared with none.
    """
    rows = []
    for concurrency in dict.fromkeys(cell.concurrency for cell in cells):
        for system, over in (
            ("builtin", "plain"),
            ("dflash", "plain"),
            ("dflash", "builtin"),
            ("dflash", HUB),
            ("adaptive", "plain"),
        ):
            value = speedup(cells, system, over, concurrency)
            by_cpu = speedup(cells, system, over, concurrency, "tokens_per_cpu_second")
            if value is not None and system not in wrong and over not in wrong:
                row = {"system": system, "over": over, "concurrency": concurrency}
                rows.append({**row, "speedup": value, "speedup_per_cpu_second": by_cpu})
    return rows


def speed_table(cells: Sequence[Cell], wrong: Collection[str]) -> Table:
    """Speed and latency; speed-ups only of systems whose answers were right."""
    table = plain_table()
    table.add_column("in flight", justify="right")
    table.add_column("system", no_wrap=True)
    others = tuple(name for name in ("plain", "builtin", HUB) if any(cell.system == name for cell in cells))
    over = tuple(f"over {LABELS[name]}" for name in others)
    for name in ("tokens/s", *over, "tokens/CPU s", *over, "first token ms", "ms/token", "ms/round", "accept length"):
        table.add_column(name, justify="right")
    for cell in cells:
        table.add_row(
            str(cell.concurrency),
            LABELS[cell.system],
            *_figure(cells, cell, "tokens_per_second", others, wrong),
            *_figure(cells, cell, "tokens_per_cpu_second", others, wrong),
            number(cell.first_token_ms),
            number(cell.inter_token_ms, 2),
            number(cell.round_ms, 2),
            number(cell.acceptance.accept_length, 2),
            end_section=cell.system == "dflash",
        )
    return table


def _figure(cells: Sequence[Cell], cell: Cell, figure: str, others: Sequence[str], wrong: Collection[str]) -> list[str]:
    ratio = [
        None if {cell.system, over} & set(wrong) else speedup(cells, cell.system, over, cell.concurrency, figure)
        for over in others
    ]
    return [number(getattr(cell, figure), 0), *(number(value, 2, "x") for value in ratio)]


def position_table(cells: Sequence[Cell]) -> Table | None:
    """Share of rounds that kept each draft position, per speculating system, at the lowest concurrency."""
    shown = {cell.system: cell for cell in reversed(cells) if cell.acceptance.rounds}
    if not shown:
        return None
    longest = max(len(cell.acceptance.by_position) for cell in shown.values())
    table = plain_table()
    table.add_column("system", no_wrap=True)
    for position in range(1, longest + 1):
        table.add_column(str(position), justify="right")
    for system, cell in shown.items():
        kept = [f"{share:.2f}".removeprefix("0") for share in cell.acceptance.by_position]
        table.add_row(LABELS[system], *kept)
    return table


def stage_table(cells: Sequence[Cell]) -> Table | None:
    """Median milliseconds of our rounds by stage."""
    timed = [cell for cell in cells if cell.stages]
    if not timed:
        return None
    names = list(dict.fromkeys(name for cell in timed for name in cell.stages if name not in ("round", "outside")))
    table = plain_table()
    table.add_column("in flight", justify="right")
    for name in (*names, "outside", "round"):
        table.add_column(name, justify="right")
    for cell in timed:
        table.add_row(str(cell.concurrency), *(number(cell.stages.get(n), 2) for n in (*names, "outside", "round")))
    return table


def memory_table(memory: Mapping[str, Mapping[str, int | None]]) -> Table:
    """Peak memory and idle load per system."""
    table = plain_table()
    for name in ("system", "peak resident", "on the GPU"):
        table.add_column(name, justify="left" if name == "system" else "right")
    for system, row in memory.items():
        gpu = row["gpu_bytes"]
        table.add_row(
            LABELS[system], f"{row['peak_bytes'] / 1e9:.2f} GB", MISSING if gpu is None else f"{gpu / 1e9:.2f} GB"
        )
    return table


def equality_line(comparison: Comparison) -> str:
    """One sentence on whether the outputs agree."""
    if not comparison.answers:
        return "The answers are drawn: they are not compared one by one."
    if comparison.wrong:
        names = ", ".join(LABELS.get(name, name) for name in sorted(comparison.wrong_systems))
        return f"{len(comparison.wrong)} answers of {names} differ from plain decoding: no ratio of theirs is printed."
    ties = f", but for {len(comparison.ties)} ties under {comparison.limit:g} nats" if comparison.ties else ""
    return f"All {comparison.answers} answers are identical to plain decoding, token for token{ties}."


def print_report(console: Console, cells: Sequence[Cell], comparison: Comparison, memory: Mapping) -> None:
    """All tables, then what differed."""
    wrong = comparison.wrong_systems
    show(console, "Medians over repetitions (CPU s: of the scheduler process)", speed_table(cells, wrong))
    show(console, POSITIONS, position_table(cells))
    show(console, "Our rounds, milliseconds by stage", stage_table(cells))
    show(console, "Memory of the server's processes", memory_table(memory))
    console.print()
    console.print(equality_line(comparison), style="bold red" if wrong else None)
    for difference in comparison.differences:
        console.print(
            f"  {'tie' if difference.tie else 'DIFFERENT'}: {difference.prompt} on {LABELS[difference.system]}, token "
            f"{difference.position}: {difference.given} instead of {difference.expected}, "
            f"{MISSING if difference.gap is None else f'{difference.gap:.1e}'} nats apart"
        )
