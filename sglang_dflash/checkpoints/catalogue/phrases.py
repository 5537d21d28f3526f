"""Entries in words, for scripts, tables and pages."""

from sglang_dflash.checkpoints.catalogue.entries import DraftEntry, Entry

_MODES = {
    "off": "thinking off: the draft was trained without",
    "on": "thinking on, as the draft was trained",
    "unknown": "the mode that the draft was trained in is not published",
}


def mode_words(entry: Entry) -> str:
    """The mode to serve in."""
    return _MODES[entry.thinking]


def draft_words(draft: DraftEntry) -> str:
    """A draft's checkpoint, with its kind where it is not the plain one."""
    words = draft.checkpoint
    if draft.kind != "DFlash":
        words += f" ({draft.kind})"
    return words + (", access on request" if draft.gated else "")


def block_words(entry: Entry) -> str:
    """How long blocks are."""
    size, trained = entry.block_size, entry.draft.block_size
    if size is None:
        return "blocks as in its config"
    return f"blocks of {size}" if trained in (None, size) else f"blocks of {size} (trained: {trained})"


def range_words(values: tuple[float, float] | None, suffix: str = "") -> str:
    """ "5.5 to 9.2", "8.0" or "-"."""
    if values is None:
        return "-"
    low, high = values
    return f"{low:.1f}{suffix}" if low == high else f"{low:.1f}{suffix} to {high:.1f}{suffix}"


def published_words(entry: Entry) -> str:
    """Range of the published figures at the block served, and where they come from."""
    parts = []
    if entry.accept_length:
        parts.append(f"accept length {range_words(entry.accept_length)}")
    if entry.speedup:
        parts.append(f"{range_words(entry.speedup, 'x')} plain decoding at one request")
    if not parts:
        return "no figures"
    records = [record for record in entry.published if record.block_size == entry.block_size]
    places = dict.fromkeys(f"{record.hardware}, {record.engine}: {record.source}" for record in records)
    return f"{', '.join(parts)} ({'; '.join(places)})"
