"""Checkpoints, the CSV of a run, and its progress line."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import torch

from sglang_dflash.errors import DFlashError

CHECKPOINT = "checkpoint.pt"


def save_checkpoint(folder: Path, state: dict) -> None:
    """Write the checkpoint so that a crash leaves the previous one intact."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / (CHECKPOINT + ".part")
    torch.save(state, partial)
    os.replace(partial, folder / CHECKPOINT)


def load_checkpoint(folder: Path, shape: dict | None = None) -> dict | None:
    """The folder's checkpoint or None; an error if it belongs to another network."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    saved = torch.load(path, map_location="cpu", weights_only=True)
    if shape is not None and saved["shape"] != shape:
        raise DFlashError("out", f"{path} holds a network of shape {saved['shape']}", "choose another --out folder")
    return saved


class RunLog:
    """Appends one CSV row per check and shows progress: a bar on a terminal, lines elsewhere."""

    def __init__(self, folder: Path, line_every_s: float = 30.0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "curve.csv"
        self.line_every_s, self.last_line = line_every_s, -1e9
        self.bar = self.task = None
        if sys.stdout.isatty():
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            self.bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
            )
            self.bar.start()
            self.task = self.bar.add_task("starting", total=1.0)

    def write(self, step: int, elapsed: float, tokens: int, loss: float, scores: dict[str, float]) -> None:
        """One row; the columns are fixed by the first row of the file."""
        row = {"step": step, "minutes": round(elapsed / 60, 2), "tokens": tokens, "loss": round(loss, 5)}
        row |= {k: round(v, 4) for k, v in scores.items()}
        fresh = not self.path.exists()
        with self.path.open("a", newline="") as f:
            writer = csv.DictWriter(f, list(row))
            if fresh:
                writer.writeheader()
            writer.writerow(row)
        self._say(" ".join(f"{k}={v}" for k, v in row.items()))

    def progress(self, name: str, step: int, elapsed: float, share: float, loss: float, tokens: int) -> None:
        """Update the bar, or print a line now and then."""
        text = f"{name} step {step} loss {loss:.4f} {tokens / max(elapsed, 1e-9):.0f} tok/s"
        if self.bar is not None:
            self.bar.update(self.task, completed=share, description=text)
        elif elapsed - self.last_line >= self.line_every_s:
            self.last_line = elapsed
            self._say(f"{text} {elapsed / 60:.1f} min, {100 * share:.0f} %")

    def _say(self, text: str) -> None:
        (self.bar.console.print if self.bar is not None else print)(text)
        sys.stdout.flush()

    def close(self) -> None:
        """Stop the bar."""
        if self.bar is not None:
            self.bar.stop()
