"""Exactness without decoding: greedy output equals the reference iff every answer id is the argmax."""

from __future__ import annotations

import torch

from sglang_dflash.tools.train.networks import Network
from sglang_dflash.tools.train.packing import Batch, Document, collate


@torch.no_grad()
def exact_share(model: Network, documents: list[Document], pad: int, rows: int = 16) -> float:
    """Share of documents whose whole answer the model would write greedily."""
    right = 0
    ordered = sorted(documents, key=lambda d: len(d[0]))
    device = next(model.module.parameters()).device
    for start in range(0, len(ordered), rows):
        some = ordered[start : start + rows]
        batch = Batch(*(t.to(device) for t in collate([[d] for d in some], len(some[-1][0]), pad)))
        at = batch.answer[:, 1:].nonzero(as_tuple=True)
        wrong = model.logits(batch, *at).argmax(-1) != batch.ids[at[0], at[1] + 1]
        right += len(some) - len(at[0][wrong].unique())
    return right / len(documents)
