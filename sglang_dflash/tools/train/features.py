"""Target features on disk: written by one pass over a data set, read again by every epoch of draft training.

A folder holds ``about.json``, a line per document in ``documents.jsonl``, the outputs of each tapped layer as
bfloat16 in ``layer-<id>.bin`` [tokens, hidden], and the target's greedy choices as int32 in ``best.bin`` [tokens].
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.train.draft_data import PROMPT_TOKENS, line_pairs, read_lines
from sglang_dflash.tools.train.frozen import FrozenTarget, Seen
from sglang_dflash.tools.train.packing import Batch, Document, collate, endless

ABOUT, DOCUMENTS, BEST = "about.json", "documents.jsonl", "best.bin"
BEST_BYTES = 4


def layer_file(layer: int) -> str:
    """Name of a tapped layer's file."""
    return f"layer-{layer}.bin"


def is_store(path: Path) -> bool:
    """Whether a folder holds features."""
    return (path / ABOUT).exists()


class FeatureWriter:
    """Appends documents to a folder; what a crash left unfinished is cut off at the next start."""

    def __init__(self, folder: Path, target: str, taps: Sequence[int], hidden_size: int) -> None:
        self.folder, self.taps = folder, list(taps)
        self.sizes = {layer_file(tap): 2 * hidden_size for tap in taps} | {BEST: BEST_BYTES}
        about = {"target": target, "taps": self.taps, "hidden_size": hidden_size}
        folder.mkdir(parents=True, exist_ok=True)
        if is_store(folder) and json.loads((folder / ABOUT).read_text()) != about:
            raise DFlashError("out", f"{folder} holds features of another target or other layers", "choose another")
        (folder / ABOUT).write_text(json.dumps(about) + "\n")
        self.documents, self.tokens = self._recover()

    def _recover(self) -> tuple[int, int]:
        path = self.folder / DOCUMENTS
        whole = []
        if path.exists():
            text = path.read_text()
            whole = text[: text.rfind("\n") + 1].splitlines(keepends=True)
        path.write_text("".join(whole))
        tokens = sum(len(json.loads(line)["ids"]) for line in whole)
        for name, size in self.sizes.items():
            with (self.folder / name).open("ab") as f:
                if f.tell() < tokens * size:
                    raise DFlashError("out", f"{self.folder / name} is shorter than its documents", "remove the folder")
                f.truncate(tokens * size)
        return len(whole), tokens

    def append(self, records: Sequence[dict], layers: Sequence[Tensor], best: Tensor) -> None:
        """Documents and their features, one after the other: layers [tokens, hidden] each, best [tokens]."""
        for name, values in zip(self.sizes, [*(x.to(torch.bfloat16).view(torch.int16) for x in layers), best.int()],
                                strict=True):  # fmt: skip
            with (self.folder / name).open("ab") as f:
                f.write(values.contiguous().cpu().numpy().tobytes())
        with (self.folder / DOCUMENTS).open("a") as f:
            f.write("".join(json.dumps(record) + "\n" for record in records))
        self.documents += len(records)
        self.tokens += sum(len(record["ids"]) for record in records)


def write_features(writer: FeatureWriter, target: FrozenTarget, records: Sequence[dict], tokens: int,
                   on_progress: Callable[[int, int], None]) -> None:  # fmt: skip
    """One target pass over the documents that the folder lacks, about ``tokens`` at a time.

    A record holds ``ids``, ``answer_from`` (where the answer begins), ``kind`` and ``heldout``.
    """
    at = writer.documents
    while at < len(records):
        count = 1
        while at + count < len(records) and sum(len(r["ids"]) for r in records[at : at + count + 1]) <= tokens:
            count += 1
        some = records[at : at + count]
        batch = collate([[document_of(r)] for r in some], max(len(r["ids"]) for r in some), 0)
        batch = Batch(*(t.to(target.final_norm.device) for t in batch))
        seen = target.observe(batch, writer.taps)
        real = batch.doc >= 0
        layers = seen.features[real].chunk(len(writer.taps), -1)
        writer.append(some, layers, seen.best[real])
        at += count
        on_progress(at, len(records))


def read_records(path: Path, tokenizer, max_length: int, heldout_share: float) -> list[dict]:
    """Documents of a JSONL file, one per answer; a share of the prompts, the same at every reading, is held out.

    Raises:
        DFlashError: a line is neither text nor chat, or nothing usable is left.
    """
    records = []
    for line in read_lines(path):
        for prompt, reply in line_pairs(line, tokenizer, PROMPT_TOKENS, path):
            ids = (prompt + reply)[:max_length]
            if len(ids) < len(prompt) + 2:
                continue
            draw = int.from_bytes(hashlib.sha256(repr(prompt).encode()).digest()[:4], "big") / 2**32
            heldout = draw < heldout_share
            # Rounds are replayed over the target's greedy text only.
            if heldout and not line.get("greedy", True):
                continue
            kind = line.get("kind", "all")
            records.append({"ids": ids, "answer_from": len(prompt), "kind": kind, "heldout": heldout})
    if len(records) < 2:
        raise DFlashError("data", f"{path} yields {len(records)} usable documents", "give at least two answers")
    return records


def document_of(record: dict) -> Document:
    """Ids and which of them are the answer."""
    begin = record["answer_from"]
    return record["ids"], [False] * begin + [True] * (len(record["ids"]) - begin)


class FeatureStore:
    """Documents of a folder, and their features by what they are."""

    def __init__(self, folder: Path, seed: int) -> None:
        about = json.loads((folder / ABOUT).read_text())
        self.taps, self.hidden_size, self.target = about["taps"], about["hidden_size"], about["target"]
        records = [json.loads(line) for line in (folder / DOCUMENTS).read_text().splitlines()]
        ends = np.cumsum([len(record["ids"]) for record in records])
        if not records:
            raise DFlashError("data", f"{folder} holds no documents", "run train features to its end")
        self.rows = {
            tuple(r["ids"]): (int(end) - len(r["ids"]), int(end)) for r, end in zip(records, ends, strict=True)
        }
        self._layers = {
            tap: np.memmap(folder / layer_file(tap), np.int16, "r", shape=(int(ends[-1]), self.hidden_size))
            for tap in self.taps
        }
        self._best = np.memmap(folder / BEST, np.int32, "r", shape=(int(ends[-1]),))
        usable = [record for record in records if len(record["ids"]) > record["answer_from"] + 1]
        self.documents = [document_of(record) for record in usable if not record["heldout"]]
        self.seed = seed
        self.heldout: dict[str, list[Document]] = {}
        for record in usable:
            if record["heldout"]:
                self.heldout.setdefault(record["kind"], []).append(document_of(record))

    def read(self, ids: Sequence[int], taps: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Features [len(ids), taps * hidden] and greedy choices [len(ids)] of one document."""
        begin, end = self.rows[tuple(ids)]
        layers = [torch.from_numpy(self._layers[tap][begin:end].copy()).view(torch.bfloat16) for tap in taps]
        return torch.cat(layers, -1), torch.from_numpy(self._best[begin:end].astype(np.int64))

    def __iter__(self) -> Iterator[Document]:
        return endless(self.documents, self.seed)

    def rebalance(self, lengths: dict[str, float]) -> None:
        """The data set is taken as it is."""

    def validation(self, target: FrozenTarget, per_kind: int) -> dict[str, list[Document]]:
        """Held-out documents, whose answers are the target's own."""
        return {kind: documents[:per_kind] for kind, documents in sorted(self.heldout.items())}


class StoredTarget:
    """A target whose passes over stored documents are read instead of run; head and embedding stay its own."""

    def __init__(self, target: FrozenTarget, store: FeatureStore, device: str) -> None:
        self._target, self._store, self._device = target, store, device

    def __getattr__(self, name: str):
        return getattr(self._target, name)

    def observe(self, batch: Batch, taps: list[int]) -> Seen:
        """What the store has of each row; rows are stored documents, padded."""
        rows, length = batch.ids.shape
        features = torch.zeros(rows, length, len(taps) * self._store.hidden_size, dtype=torch.bfloat16)
        best = torch.zeros(rows, length, dtype=torch.long)
        for row, (ids, count) in enumerate(zip(batch.ids.tolist(), (batch.doc >= 0).sum(1).tolist(), strict=True)):
            features[row, :count], best[row, :count] = self._store.read(ids[:count], taps)
        return Seen(features.to(self._device).float(), best.to(self._device))
