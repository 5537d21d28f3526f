"""The catalogue as a terminal table, as JSON and as a markdown page."""

import dataclasses
from collections.abc import Iterable

from rich.table import Table

from sglang_dflash.checkpoints.catalogue.entries import GENERATIONS, Catalogue, Entry
from sglang_dflash.checkpoints.catalogue.phrases import (
    block_words,
    draft_words,
    mode_words,
    published_words,
    range_words,
)

_PAGE_HEAD = """\
# Models

Every target with a published DFlash draft. Made from `sglang_dflash/checkpoints/catalogue/targets.toml` by
`python -m sglang_dflash.checkpoints.catalogue`; `sglang-dflash models` prints it, `--json` with every field.

    sglang-dflash launch qwen3.5-27b             # prints the command for this machine's GPU
    sglang-dflash launch qwen3.5-27b --run       # runs it
    launch/qwen3.5-27b.sh --port 30001           # the same as a script; DRY_RUN=1 only prints
    sglang-dflash check TARGET DRAFT             # does the pair fit, and this machine? (check.md)

Figures are their owners', none of them measured with this package. Confidence: A read in the owner's text, config or
code; B quoted by others; C inferred from the model's family. Context lengths are what the scripts serve, not limits.
"""


def terminal_table(entries: Iterable[Entry]) -> Table:
    """One row per target."""
    table = Table(header_style="bold", pad_edge=False)
    for title in ("name", "target", "draft", "block", "accept", "speed-up", "tp", "sure"):
        table.add_column(title, overflow="fold")
    for entry in entries:
        if not entry.served:
            table.add_row(
                entry.name, entry.checkpoint, f"[dim]{entry.unserved}[/dim]", "", "", "", "", entry.confidence
            )
            continue
        table.add_row(
            entry.name,
            entry.checkpoint,
            draft_words(entry.draft),
            str(entry.block_size or "config"),
            range_words(entry.accept_length),
            range_words(entry.speedup, "x"),
            str(entry.tp),
            entry.confidence,
        )
    return table


def as_json(entries: Iterable[Entry]) -> list[dict]:
    """Every field of every entry, and the derived ranges."""
    return [
        dataclasses.asdict(entry)
        | {
            "served": entry.served,
            "expected_accept_length": entry.accept_length,
            "expected_speedup": entry.speedup,
            "script": f"launch/{entry.name}.sh" if entry.served else None,
        }
        for entry in entries
    ]


def page(catalogue: Catalogue) -> str:
    """docs/models.md."""
    served = [entry for entry in catalogue if entry.served]
    unserved = [entry for entry in catalogue if not entry.served]
    lines = [_PAGE_HEAD, "| Script | Target | Draft | Blocks | Accept length | Speed-up | Hardware | Sure |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    lines += [_row(entry) for entry in served]
    lines += ["", "Ranges are over tasks, at one request in flight.", "", "## Not served in SGLang 0.5.23", ""]
    lines += ["| Target | Why |", "|---|---|"]
    lines += [f"| {entry.checkpoint} | {entry.unserved} |" for entry in unserved]
    lines += ["", "## Attention backends", ""]
    lines += ["Target / draft (page size) by GPU generation; `-` leaves SGLang's choice.", ""]
    lines += _attention_table(served)
    lines += ["", "## Each target", ""]
    for entry in served:
        lines += _section(entry)
    return "\n".join(lines).rstrip() + "\n"


def _row(entry: Entry) -> str:
    cells = (
        f"[{entry.name}](../launch/{entry.name}.sh)",
        entry.checkpoint,
        draft_words(entry.draft),
        block_words(entry).removeprefix("blocks of ").removeprefix("blocks "),
        range_words(entry.accept_length),
        range_words(entry.speedup, "x"),
        entry.hardware,
        entry.confidence,
    )
    return f"| {' | '.join(cells)} |"


def _attention_table(entries: Iterable[Entry]) -> list[str]:
    kinds = {entry.attention.name: entry.attention for entry in entries}
    lines = [f"| Kind | {' | '.join(GENERATIONS)} | Sure | Source |", "|---" * (len(GENERATIONS) + 3) + "|"]
    for kind in kinds.values():
        cells = [kind.on(generation) for generation in GENERATIONS]
        texts = [f"{row.target or '-'} / {row.draft or '-'} ({row.page})" for row in cells]
        lines.append(f"| {kind.name} | {' | '.join(texts)} | {kind.confidence} | {kind.source} |")
    return lines


def _section(entry: Entry) -> list[str]:
    facts = [
        f"`{entry.architecture}`, {entry.traits}; {mode_words(entry)}.",
        f"Attention as in *{entry.attention.name}*; context {entry.context_length}, memory fraction "
        f"{entry.memory_fraction}, tp {entry.tp}.",
    ]
    if entry.published:
        facts.append(f"Published: {published_words(entry)}.")
    if entry.draft.others:
        facts.append(f"Other drafts: {', '.join(entry.draft.others)}.")
    facts += [f"{note[0].upper()}{note[1:]}." for note in entry.notes]
    lines = [f"### {entry.name}", "", *facts, ""]
    for record in entry.published:
        lines += _figures(record)
    return lines


def _figures(record) -> list[str]:
    heads = [f"c{n}" for n in record.concurrency] if record.speedup else []
    lines = [
        f"{record.source} ({record.confidence}): {record.hardware}, {record.engine}, blocks of {record.block_size}, "
        f"{record.settings}.",
        "",
        f"| Task | {' | '.join([*heads, 'accept length'])} |",
        "|---" * (len(heads) + 2) + "|",
    ]
    for task in dict.fromkeys([*record.speedup, *record.accept_length]):
        speeds = [f"{value}x" for value in record.speedup.get(task, ())] or ["-"] * len(heads)
        lines.append(f"| {task} | {' | '.join([*speeds, str(record.accept_length.get(task, '-'))])} |")
    return [*lines, ""]
