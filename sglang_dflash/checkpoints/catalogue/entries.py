"""``targets.toml`` as frozen values."""

import difflib
import functools
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sglang_dflash.errors import DFlashError

DATA = Path(__file__).with_name("targets.toml")
# GPU generation -> compute capabilities, as nvidia-smi prints them: 8.0 to 8.9, 9.0, 10.0 to 10.3, 12.0 and 12.1.
GENERATIONS = {"sm80": "8", "sm90": "9", "sm100": "10", "sm120": "12"}
_OTHER = "other"


@dataclass(frozen=True)
class Backends:
    """Attention of target and draft on one GPU generation; "" leaves SGLang's own choice."""

    target: str
    draft: str
    page: int = 1  # tokens


@dataclass(frozen=True)
class Attention:
    """Backends per GPU generation, for targets of one kind."""

    name: str
    source: str
    confidence: str
    rows: Mapping[str, Backends]

    def on(self, generation: str | None) -> Backends:
        """The row of a generation; the common row for those not listed and for None."""
        return self.rows.get(generation or _OTHER, self.rows[_OTHER])


@dataclass(frozen=True)
class DraftEntry:
    """A published draft; what a config would say is None where it is not established."""

    checkpoint: str
    kind: str = "DFlash"
    block_size: int | None = None  # as trained, anchor included
    served_block: int | None = None  # where its owners serve it with another
    mask_token_id: int | None = None
    layer_ids: tuple[int, ...] | None = None
    trained_context: int | None = None  # tokens
    window: int | None = None  # draft window that keeps it going on contexts longer than it was trained on
    gated: bool = False
    others: tuple[str, ...] = ()

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The one that scripts use, then the alternatives."""
        return (self.checkpoint, *self.others)


@dataclass(frozen=True)
class Published:
    """One published measurement: speed over plain decoding per task and concurrency, accept length per task."""

    source: str
    confidence: str
    hardware: str
    engine: str
    settings: str
    block_size: int
    concurrency: tuple[int, ...]
    speedup: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    accept_length: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One target and how to serve it. ``unserved`` is the reason why it cannot be, "" where it can."""

    name: str
    title: str
    checkpoint: str
    architecture: str
    traits: str
    confidence: str
    draft: DraftEntry | None = None
    layers: int | None = None
    hidden_size: int | None = None
    vocab_size: int | None = None
    thinking: str = "unknown"  # the mode that the draft was trained in: on, off, unknown
    hardware: str = ""
    tp: int = 1
    attention: Attention | None = None
    mamba: str = ""
    memory_fraction: float | None = None
    context_length: int | None = None  # that scripts serve, tokens
    reasoning_parser: str = ""
    tool_call_parser: str = ""
    trust_remote_code: bool = False  # only where tokenizer or config is code in the checkpoint
    flags: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    published: tuple[Published, ...] = ()
    notes: tuple[str, ...] = ()
    unserved: str = ""

    @property
    def served(self) -> bool:
        """Whether a launch script exists."""
        return not self.unserved

    @property
    def block_size(self) -> int | None:
        """The block that scripts ask for, None where the draft's own config decides."""
        return None if self.draft is None else self.draft.served_block or self.draft.block_size

    @property
    def accept_length(self) -> tuple[float, float] | None:
        """Lowest and highest published accept length at the block that scripts ask for."""
        return _range(
            value
            for record in self.published
            if record.block_size == self.block_size
            for value in record.accept_length.values()
        )

    @property
    def speedup(self) -> tuple[float, float] | None:
        """Lowest and highest published speed over plain decoding, one request in flight, at that block."""
        return _range(
            values[record.concurrency.index(1)]
            for record in self.published
            if record.block_size == self.block_size and 1 in record.concurrency
            for values in record.speedup.values()
        )


@dataclass(frozen=True)
class Catalogue:
    """All entries, in the order of the file."""

    entries: tuple[Entry, ...]
    attention: Mapping[str, Attention]  # by kind of target

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def find(self, words: str) -> Entry:
        """The entry with this name, title or checkpoint, upper and lower case alike.

        Raises:
            DFlashError: there is none.
        """
        wanted = words.casefold()
        for entry in self.entries:
            if wanted in {name.casefold() for name in _names(entry)}:
                return entry
        names = [entry.name for entry in self.entries]
        near = difflib.get_close_matches(wanted, names, 3, 0.5)
        remedy = f"did you mean {' or '.join(near)}?" if near else "sglang-dflash models lists them"
        raise DFlashError("model", f"{words!r} is not in the catalogue", remedy)

    def of_target(self, checkpoint: str) -> Entry | None:
        """The entry of a target given as hub id, or as a folder of the same name; None where unknown."""
        return next((entry for entry in self.entries if _same(checkpoint, entry.checkpoint)), None)

    def of_draft(self, checkpoint: str) -> Entry | None:
        """The entry that a draft belongs to; None where unknown."""
        for entry in self.entries:
            if entry.draft and any(_same(checkpoint, name) for name in entry.draft.checkpoints):
                return entry
        return None


@functools.cache
def load_catalogue() -> Catalogue:
    """The catalogue that comes with the package."""
    raw = tomllib.loads(DATA.read_text())
    attention = {name: _attention(name, row) for name, row in raw["attention"].items()}
    return Catalogue(tuple(_entry(row, attention) for row in raw["target"]), attention)


def _attention(name: str, row: Mapping) -> Attention:
    rows = {key: Backends(**value) for key, value in row.items() if isinstance(value, Mapping)}
    return Attention(name, row["source"], row["confidence"], rows)


def _entry(row: Mapping, attention: Mapping[str, Attention]) -> Entry:
    fields = dict(row)
    if "draft" in fields:
        fields["draft"] = DraftEntry(**_tuples(fields["draft"]))
    if "attention" in fields:
        fields["attention"] = attention[fields["attention"]]
    fields["flags"] = tuple(shlex.split(fields.get("flags", "")))
    fields["published"] = tuple(_published(record) for record in fields.get("published", ()))
    return Entry(**_tuples(fields))


def _published(record: Mapping) -> Published:
    fields = _tuples(record)
    fields["speedup"] = {task: tuple(values) for task, values in fields.get("speedup", {}).items()}
    return Published(**fields)


def _tuples(row: Mapping) -> dict:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


def _range(values) -> tuple[float, float] | None:
    values = list(values)
    return (min(values), max(values)) if values else None


def _names(entry: Entry) -> tuple[str, ...]:
    return entry.name, entry.title, entry.checkpoint


def _same(given: str, checkpoint: str) -> bool:
    """A hub id is compared whole; of a path, the last part counts (a snapshot's is the repository's)."""
    if given.casefold() == checkpoint.casefold():
        return True
    path = Path(given)
    if not path.is_dir():
        return False
    for part in (path.resolve().name, *(parent.name for parent in path.resolve().parents)):
        if part.startswith("models--"):  # the hub's cache: models--owner--name/snapshots/<revision>
            return part.removeprefix("models--").replace("--", "/").casefold() == checkpoint.casefold()
    return path.resolve().name.casefold() == checkpoint.rpartition("/")[2].casefold()
