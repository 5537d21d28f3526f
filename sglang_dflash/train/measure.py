"""Exactness without decoding: greedy output equals the reference iff every answer id is the argmax."""

from __future__ import annotations

import torch
from torch import Tensor

from sglang_dflash.train.model import TinyQwen3
from sglang_dflash.train.packing import Document


def pad_documents(documents: list[Document], pad: int) -> tuple[Tensor, Tensor]:
    """ids [n, longest] and answer marks [n, longest]."""
    width = max(len(ids) for ids, _ in documents)
    ids = torch.full((len(documents), width), pad)
    answer = torch.zeros(len(documents), width, dtype=torch.bool)
    for r, (tokens, marks) in enumerate(documents):
        ids[r, : len(tokens)] = torch.tensor(tokens)
        answer[r, : len(tokens)] = torch.tensor(marks)
    return ids, answer


@torch.no_grad()
def exact_share(model: TinyQwen3, documents: list[Document], pad: int, rows: int = 16) -> float:
    """Share of documents whose whole answer the model would write greedily."""
    right = 0
    ordered = sorted(documents, key=lambda d: len(d[0]))
    with model.cos.device:
        for start in range(0, len(ordered), rows):
            ids, answer = pad_documents(ordered[start : start + rows], pad)
            width = ids.shape[1]
            bias = torch.full((width, width), float("-inf")).triu(1)[None, None]
            hidden = model(ids, torch.arange(width).expand(ids.shape[0], -1), bias)
            wrong = (model.logits(hidden[:, :-1]).argmax(-1) != ids[:, 1:]) & answer[:, 1:]
            right += int((~wrong.any(1)).sum())
    return right / len(documents)
