"""One picture of a measurement."""

from collections.abc import Collection, Sequence
from pathlib import Path

from sglang_dflash.tools.bench.summary import Cell, speedup
from sglang_dflash.tools.bench.systems import LABELS

COLOURS = {
    "transformers": "#b8a04a",
    "plain": "#888888",
    "builtin": "#e08a3c",
    "dflash": "#2f6fbd",
    "adaptive": "#2f9f6d",
}


def save_plot(cells: Sequence[Cell], path: Path, title: str, wrong: Collection[str] = ()) -> None:
    """Tokens per second, speed-up over plain (but of ``wrong`` systems), acceptance by position."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (speed, gain, kept) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    systems = list(dict.fromkeys(cell.system for cell in cells))
    concurrencies = list(dict.fromkeys(cell.concurrency for cell in cells))
    width = 0.8 / len(systems)
    for number, system in enumerate(systems):
        mine = [cell for cell in cells if cell.system == system]
        style = {"color": COLOURS.get(system), "label": LABELS[system]}
        places = [concurrencies.index(cell.concurrency) + number * width for cell in mine]
        speed.bar(places, [cell.tokens_per_second or 0 for cell in mine], width, **style)
        over = [speedup(cells, system, "plain", cell.concurrency) for cell in mine]
        if system != "plain" and not {system, "plain"} & set(wrong) and None not in over:
            gain.plot([cell.concurrency for cell in mine], over, marker="o", **style)
        if mine[0].acceptance.rounds:
            shares = mine[0].acceptance.by_position
            kept.plot(range(1, len(shares) + 1), shares, marker=".", **style)
    middle = (len(systems) - 1) * width / 2
    speed.set_xticks([place + middle for place in range(len(concurrencies))], [str(c) for c in concurrencies])
    speed.set(title="tokens/s", xlabel="requests in flight")
    gain.set(title="speed-up over plain", xlabel="requests in flight")
    gain.set_xticks(concurrencies)
    gain.axhline(1, color="#bbbbbb", linewidth=1)
    kept.set(title="share of rounds keeping position", xlabel="draft position", ylim=(0, 1))
    for axis in (speed, gain, kept):
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=130)
    plt.close(figure)
