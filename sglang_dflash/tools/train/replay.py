"""Accept lengths by replay: rounds over text that is the target's own greedy output.

While the text is the target's greedy continuation, verification is a comparison with it,
so many requests can run in lockstep and give exactly the rounds of a batch-1 loop.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from sglang_dflash.tools.train.blocks import make_blocks
from sglang_dflash.tools.train.draft_model import DraftNetwork
from sglang_dflash.tools.train.frozen import FrozenTarget
from sglang_dflash.tools.train.packing import Batch, Document, collate


@dataclass
class Rounds:
    """Commit lengths per document, and per position how often it was offered and kept."""

    commit_lens: list[list[int]] = field(default_factory=list)
    offered: list[int] = field(default_factory=list)  # [B - 1]: the text went on that far
    reached: list[int] = field(default_factory=list)  # [B - 1]: and all positions before were kept
    kept: list[int] = field(default_factory=list)  # [B - 1]

    def accept_length(self) -> float:
        """Mean commit length over all rounds."""
        flat = [n for lens in self.commit_lens for n in lens]
        return sum(flat) / len(flat) if flat else 0.0

    def merge(self, other: Rounds) -> None:
        """Add another set of rounds."""
        self.commit_lens += other.commit_lens
        if not self.offered:
            self.offered, self.reached, self.kept = ([0] * len(other.offered) for _ in range(3))
        self.offered = [a + b for a, b in zip(self.offered, other.offered, strict=True)]
        self.reached = [a + b for a, b in zip(self.reached, other.reached, strict=True)]
        self.kept = [a + b for a, b in zip(self.kept, other.kept, strict=True)]


def no_rounds(size: int, documents: int = 0) -> Rounds:
    """Empty counts for blocks of ``size``."""
    offered, reached, kept = ([0] * (size - 1) for _ in range(3))
    return Rounds([[] for _ in range(documents)], offered, reached, kept)


@torch.no_grad()
def replay(
    target: FrozenTarget,
    draft: DraftNetwork,
    documents: list[Document],
    taps: list[int],
    size: int,
    mask_id: int,
    rows: int = 32,
    device: str = "cpu",
) -> Rounds:
    """Rounds over ``documents``, each one prompt followed by the target's greedy answer."""
    total = no_rounds(size)
    ordered = sorted((d for d in documents if sum(d[1]) > 1), key=lambda d: len(d[0]))
    for start in range(0, len(ordered), rows):
        some = ordered[start : start + rows]
        batch = collate([[d] for d in some], max(len(ids) for ids, _ in some), 0)
        total.merge(_replay_batch(target, draft, Batch(*(t.to(device) for t in batch)), taps, size, mask_id))
    return total


def _replay_batch(
    target: FrozenTarget, draft: DraftNetwork, batch: Batch, taps: list[int], size: int, mask_id: int
) -> Rounds:
    context = draft.context(target.observe(batch, taps).features, batch.positions)
    count = batch.ids.shape[0]
    ends = [int(row.nonzero()[-1]) for row in batch.answer]
    # The first answer id comes from prefill and anchors the first round.
    anchor = [int(row.nonzero()[0]) for row in batch.answer]
    result = no_rounds(size, count)
    while any(a < e for a, e in zip(anchor, ends, strict=True)):
        at = torch.tensor([min(a, e) for a, e in zip(anchor, ends, strict=True)], device=batch.ids.device)[:, None]
        blocks = make_blocks(batch, batch.ids, at, size, mask_id)
        hidden = draft.draft(context, target.embed(blocks.ids), blocks.positions, blocks.seen)
        proposed = target.head(hidden[:, 0, 1:]).argmax(-1).tolist()
        for r in range(count):
            left = ends[r] - anchor[r]
            if left <= 0:
                continue
            text = batch.ids[r, anchor[r] + 1 : anchor[r] + size].tolist()[:left]
            correct = 0
            while correct < min(left, size - 1) and proposed[r][correct] == text[correct]:
                correct += 1
            for k in range(min(left, size - 1)):
                result.offered[k] += 1
                result.reached[k] += k <= correct
                result.kept[k] += k < correct
            commit = min(correct + 1, left)
            result.commit_lens[r].append(commit)
            anchor[r] += commit
    return result
