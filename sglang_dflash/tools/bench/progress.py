"""How far a measurement is: a bar with the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

NEWS = 20.0  # seconds between two lines


@contextmanager
def batches(console: Console) -> Iterator[Callable[[int, int], None]]:
    """``show(done, total)``."""
    if console.is_terminal:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("Measuring, one system at a time", total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)
        return
    console.print("Measuring, one system at a time ...")
    began = told = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= NEWS:
            told = now
            console.print(f"  {done} of {total} batches, about {(now - began) / done * (total - done):.0f} s left")

    yield show
