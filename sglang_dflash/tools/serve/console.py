"""Starts several servers side by side and shows how far they are."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from sglang_dflash.tools.serve.process import START_TIMEOUT, ServerProcess, wait_all
from sglang_dflash.tools.serve.spec import ServerSpec, accelerator_present, side_by_side

WIDTH = 132  # columns where there is no terminal to ask


def make_console(stderr: bool = False) -> Console:
    """Where results are printed: wide enough for the tables in a file or a pipe."""
    console = Console(highlight=False, stderr=stderr)
    return console if console.is_terminal else Console(width=WIDTH, highlight=False, stderr=stderr)


@contextmanager
def started(
    specs: Mapping[str, ServerSpec], console: Console, log_dir: Path | None = None, make=ServerProcess
) -> Iterator[dict[str, ServerProcess]]:
    """Running servers by label, all stopped on the way out, whatever happens.

    Args:
        make: constructor of a server from spec and log folder (tests).

    Raises:
        DFlashError: one of them did not start.
    """
    specs = side_by_side(specs, accelerator_present())
    servers = {label: make(spec, log_dir) for label, spec in specs.items()}
    try:
        for server in servers.values():
            server.start()
        labels = {id(server): label for label, server in servers.items()}
        with _display(console, list(servers)) as show:
            wait_all(
                servers.values(),
                # They share the cores while they import.
                START_TIMEOUT * max(1, len(servers) - 1),
                lambda server, percent, phase: show(labels[id(server)], percent, phase),
            )
        yield servers
    finally:
        for server in servers.values():
            server.stop()


@contextmanager
def _display(console: Console, labels: list[str]):
    """``show(label, percent, phase)``: bars on a terminal, else one line per change."""
    if not console.is_terminal:
        seen = {}

        def show(label, percent, phase):
            if seen.get(label) != phase:
                seen[label] = phase
                console.print(f"  {label}: {phase}")

        yield show
        return
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[phase]}")
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        tasks = {label: progress.add_task(label, total=100, phase="starting") for label in labels}
        yield lambda label, percent, phase: progress.update(tasks[label], completed=percent, phase=phase)
