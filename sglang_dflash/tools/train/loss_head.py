"""Over which vocabulary a draft's loss is taken: the target's own, or the ids that the answers use most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from sglang_dflash.tools.train.frozen import FrozenTarget
from sglang_dflash.tools.train.packing import Document


class LossHead(Protocol):
    """Logits, and the labels that fit them."""

    def logits(self, hidden: Tensor) -> Tensor: ...  # [n, hidden] -> [n, ids]
    def labels(self, ids: Tensor) -> Tensor: ...  # target ids -> positions among the logits; -1 where there is none


class WholeHead:
    """The target's head as it is."""

    def __init__(self, target: FrozenTarget) -> None:
        self._target = target

    def logits(self, hidden: Tensor) -> Tensor:
        return self._target.head(hidden)

    def labels(self, ids: Tensor) -> Tensor:
        return ids


class FrequentHead:
    """The head's rows of the ids most frequent in the answers: the rest of a large head costs more than it teaches.

    Slots whose label is not among them are left out of the loss; proposals are made with the whole head all the same.
    """

    def __init__(self, target: FrozenTarget, documents: Iterable[Document], size: int) -> None:
        counts = Counter(i for ids, marks in documents for i, answer in zip(ids, marks, strict=True) if answer)
        kept = torch.tensor(sorted(i for i, _ in counts.most_common(size)))
        self.share = sum(counts[i] for i in kept.tolist()) / sum(counts.values())  # of the answers' tokens
        self._rows = target.head_rows(kept.to(target.final_norm.device))
        self._where = torch.full((target.config["vocab_size"],), -1, device=self._rows.device)
        self._where[kept] = torch.arange(len(kept), device=self._rows.device)

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self._rows)

    def labels(self, ids: Tensor) -> Tensor:
        return self._where[ids]
