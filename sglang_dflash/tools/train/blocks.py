"""Anchors, blocks and labels of draft training."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sglang_dflash.tools.train.packing import Batch


class Blocks(NamedTuple):
    """Blocks to draft. ``a`` anchors per row, ``B`` positions per block, the anchor first."""

    ids: Tensor  # [rows, a, B] int64: anchor id, then the mask token
    positions: Tensor  # [rows, a, B] int64, absolute within the document
    seen: Tensor  # [rows, a, length] bool: context before the anchor
    labels: Tensor  # [rows, a, B - 1] int64: the target's greedy continuation
    valid: Tensor  # [rows, a, B - 1] bool


def sample_anchors(batch: Batch, count: int, generator: torch.Generator) -> Tensor:
    """Random answer positions [rows, count] that an answer id follows; they repeat where a row has few."""
    usable = batch.answer[:, :-1] & batch.answer[:, 1:] & (batch.doc[:, :-1] == batch.doc[:, 1:])
    weights = usable.float().cpu()
    weights[weights.sum(1) == 0, 0] = 1.0  # a row without answers: its labels are invalid anyway
    return torch.multinomial(weights, count, replacement=True, generator=generator).to(batch.ids.device)


def greedy_labels(batch: Batch, best: Tensor, anchors: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Labels [rows, a, size - 1] and their validity.

    Slot k is the target's choice after position anchor + k - 1. It is the greedy continuation
    as long as the text up to there was, and exists until the answer's end.
    """
    length = batch.ids.shape[1]
    steps = torch.arange(size - 1, device=anchors.device)
    source = anchors[..., None] + steps  # [rows, a, size - 1]
    inside = source + 1 < length
    at = source.clamp(max=length - 1)
    after = (source + 1).clamp(max=length - 1)
    rows = torch.arange(anchors.shape[0], device=anchors.device)[:, None, None]
    labels = best[rows, at]
    same = batch.answer[rows, after] & (batch.doc[rows, after] == batch.doc[rows, anchors[..., None]]) & inside
    unbroken = same.cumprod(-1).bool()
    agrees = labels == batch.ids[rows, after]
    before = torch.cat((torch.ones_like(agrees[..., :1]), agrees[..., :-1]), -1).cumprod(-1).bool()
    return labels, unbroken & before


def make_blocks(batch: Batch, best: Tensor, anchors: Tensor, size: int, mask_id: int) -> Blocks:
    """Everything the draft needs for ``anchors`` [rows, a]."""
    rows = torch.arange(anchors.shape[0], device=anchors.device)[:, None]
    ids = torch.full((*anchors.shape, size), mask_id, device=anchors.device)
    ids[..., 0] = batch.ids[rows, anchors]
    positions = batch.positions[rows, anchors][..., None] + torch.arange(size, device=anchors.device)
    columns = torch.arange(batch.ids.shape[1], device=anchors.device)
    same = batch.doc[:, None, :] == batch.doc[rows, anchors][..., None]
    seen = same & (columns < anchors[..., None])
    labels, valid = greedy_labels(batch, best, anchors, size)
    return Blocks(ids, positions, seen, labels, valid)


def decay_weights(size: int, gamma: float) -> Tensor:
    """Loss weight per slot [size - 1]: an early error spoils all that follows."""
    return torch.exp(-torch.arange(size - 1, dtype=torch.float) / gamma)
