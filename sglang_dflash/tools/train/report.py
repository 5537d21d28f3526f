"""Tables, curves and model cards from results."""

from __future__ import annotations

import csv
import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from sglang_dflash import __version__


def print_table(results: dict) -> None:
    """One line per kind, then acceptance by position."""
    from rich.console import Console
    from rich.table import Table

    drafted = "accept_length" in results["summary"]
    table = Table(title="held-out prompts, greedy")
    for name in ("kind", "prompts", "right %", "accept length", "tokens", "repeated 4-grams %"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    for r in results["kinds"]:
        length = f"{r['accept_length']:.2f}" if drafted else "-"
        table.add_row(
            r["kind"],
            str(r["prompts"]),
            "-" if r["right_share"] is None else f"{100 * r['right_share']:.0f}",
            length,
            f"{r['mean_tokens']:.0f}",
            f"{100 * r['repeated_4grams']:.1f}",
        )
    console = Console()
    console.print(table)
    if drafted:
        summary = results["summary"]
        console.print(
            f"accept length: {summary['mean_over_kinds']:.2f} mean over kinds, "
            f"{summary['accept_length']:.2f} over {summary['rounds']} rounds"
        )
        for label, name in (
            ("kept, by position", "kept_by_position"),
            ("given the one before", "kept_given_previous"),
        ):
            console.print(f"{label}: " + " ".join(f"{x:.2f}" for x in summary[name]))


def plot_curve(run_folder: Path, out: Path, title: str) -> None:
    """Loss, and every kind's score, against training minutes: curve.png and curve.csv in ``out``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with (run_folder / "curve.csv").open() as f:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(f)]
    minutes = [row["minutes"] for row in rows]
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(9, 8), sharex=True)
    above.plot(minutes, [row["loss"] for row in rows])
    above.set(title=title, ylabel="running loss", yscale="log")
    styles = ("-", "--", ":")
    for i, kind in enumerate(k for k in rows[0] if k not in ("step", "minutes", "tokens", "loss")):
        below.plot(minutes, [row[kind] for row in rows], styles[i // 10 % 3], label=kind, linewidth=1)
    below.set(xlabel="minutes of training", ylabel="validation score")
    below.legend(ncol=6, fontsize=7)
    figure.tight_layout()
    figure.savefig(out / "curve.png", dpi=80)
    pyplot.close(figure)
    shutil.copyfile(run_folder / "curve.csv", out / "curve.csv")


def provenance(settings: dict) -> dict:
    """Versions, command and settings of a run."""
    import torch

    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    return {
        "sglang_dflash": __version__,
        "commit": commit,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "arguments": sys.argv[1:],
        "settings": settings,
    }


def write_json(path: Path, value: dict) -> None:
    """Indented JSON with a final newline."""
    path.write_text(json.dumps(value, indent=1) + "\n")
