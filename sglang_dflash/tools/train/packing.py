"""Best-fit packing of chats into rows, and the document mask that keeps them apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor

Document = tuple[list[int], list[bool]]  # ids, and whether each belongs to an answer


class Batch(NamedTuple):
    """Packed rows. ``doc`` is -1 on padding; ``answer[i, j]`` marks ids that are to be predicted."""

    ids: Tensor  # [rows, length] int64
    positions: Tensor  # [rows, length] int64, restarting at 0 in each document
    doc: Tensor  # [rows, length] int64
    answer: Tensor  # [rows, length] bool


def pack_rows(documents: list[Document], rows: int, length: int) -> tuple[list[list[Document]], list[Document]]:
    """Fill rows, longest documents first, each into the fullest row it fits; returns rows and leftovers."""
    filled: list[list[Document]] = [[] for _ in range(rows)]
    room = [length] * rows
    left = []
    for document in sorted(documents, key=lambda d: -len(d[0])):
        fits = [(room[r], r) for r in range(rows) if room[r] >= len(document[0])]
        if not fits:
            left.append(document)
            continue
        _, row = min(fits)
        filled[row].append(document)
        room[row] -= len(document[0])
    return filled, left


def collate(filled: list[list[Document]], length: int, pad: int) -> Batch:
    """Tensors of packed rows."""
    rows = len(filled)
    ids = torch.full((rows, length), pad)
    positions = torch.zeros(rows, length, dtype=torch.long)
    doc = torch.full((rows, length), -1)
    answer = torch.zeros(rows, length, dtype=torch.bool)
    for r, documents in enumerate(filled):
        at = 0
        for d, (tokens, marks) in enumerate(documents):
            end = at + len(tokens)
            ids[r, at:end] = torch.tensor(tokens)
            positions[r, at:end] = torch.arange(len(tokens))
            doc[r, at:end] = d
            answer[r, at:end] = torch.tensor(marks)
            at = end
    return Batch(ids, positions, doc, answer)


def document_bias(doc: Tensor) -> Tensor:
    """Additive mask [rows, 1, length, length]: causal, and only inside one document."""
    length = doc.shape[1]
    same = doc[:, :, None] == doc[:, None, :]
    seen = same & torch.ones(length, length, dtype=torch.bool, device=doc.device).tril()
    return torch.zeros(seen.shape, device=doc.device).masked_fill_(~seen, float("-inf"))[:, None]


def endless(documents: Sequence[Document], seed: int) -> Iterator[Document]:
    """Every document once an epoch, in an order of its own."""
    for epoch in itertools.count():
        order = list(range(len(documents)))
        Random(f"{seed}/{epoch}").shuffle(order)
        yield from (documents[i] for i in order)


class Packer:
    """Turns a flow of documents into batches of a constant number of tokens.

    Documents wait in one pool per row length; a batch leaves the first pool that
    can fill it. Short rows keep attention cheap, long ones are there for long answers.
    """

    def __init__(self, source: Iterator[Document], tokens: int, lengths: tuple[int, ...], pad: int) -> None:
        self.source, self.tokens, self.lengths, self.pad = source, tokens, lengths, pad
        self.pools: dict[int, list[Document]] = {n: [] for n in lengths}

    def _waiting(self, length: int) -> int:
        return sum(len(d[0]) for d in self.pools[length])

    def next_batch(self) -> Batch:
        """The next packed batch of about ``tokens`` tokens."""
        while True:
            for length in self.lengths:
                if self._waiting(length) >= 1.3 * self.tokens:
                    filled, left = pack_rows(self.pools[length], self.tokens // length, length)
                    self.pools[length] = left
                    return collate(filled, length, self.pad)
            document = next(self.source)
            fitting = [n for n in self.lengths if len(document[0]) <= n]
            if fitting:
                self.pools[fitting[0]].append(document)


class RowBatcher:
    """One document per row, rows of one batch of similar length; for networks whose rows cannot be shared."""

    def __init__(self, source: Iterator[Document], tokens: int, pad: int, ahead: int = 4) -> None:
        self.source, self.tokens, self.pad, self.ahead = source, tokens, pad, ahead
        self.pools: dict[str, list[Document]] = {"waiting": []}
        self.drawn = 0  # documents taken from the source

    def _draw(self) -> Document:
        self.drawn += 1
        return next(self.source)

    def skip(self, count: int) -> None:
        """Leave out what an earlier session drew."""
        for _ in range(count):
            self._draw()

    def next_batch(self) -> Batch:
        """The document that has waited longest with its neighbours in length, padded to the longest of them."""
        waiting = self.pools["waiting"]
        while not waiting or sum(len(d[0]) for d in waiting) < self.ahead * self.tokens:
            waiting.append(self._draw())
        first = len(waiting[0][0])
        chosen: list[int] = []
        width = 0
        for i in sorted(range(len(waiting)), key=lambda i: abs(len(waiting[i][0]) - first)):
            wider = max(width, len(waiting[i][0]))
            if chosen and wider * (len(chosen) + 1) > self.tokens:
                break
            chosen.append(i)
            width = wider
        batch = collate([[waiting[i]] for i in chosen], width, self.pad)
        taken = set(chosen)
        self.pools["waiting"] = [d for i, d in enumerate(waiting) if i not in taken]
        return batch
