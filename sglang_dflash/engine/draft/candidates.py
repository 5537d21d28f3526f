"""Candidates of every position of a block, for proposers that want more than the draft's path.

A draft pass hands on one tensor, which is all that a captured graph returns: a row per position, packed.
"""

from typing import NamedTuple

import torch

from sglang_dflash.engine.draft.selector import SelectedPath, behind_anchors
from sglang_dflash.kernels.selected_path import Transform, transition_scores
from sglang_dflash.types import Drafted


class Packing(NamedTuple):
    """Columns of a packed row, int64: the token, K candidates, their K log-probabilities, K x K transitions.

    Log-probabilities and transitions are the bit patterns of float64. An anchor's row holds its token only.
    """

    candidates: int  # K
    has_transitions: bool

    def pack(self, tokens, candidates, log_probs, transitions) -> torch.Tensor:
        """tokens [bs, B] and fields of ``Drafted`` (floats of any width) -> [bs * B, columns] int64."""
        columns = [candidates, log_probs.double().view(torch.int64)]
        if self.has_transitions:
            columns.append(transitions.double().view(torch.int64).flatten(2))
        beside = torch.nn.functional.pad(torch.cat(columns, -1), (0, 0, 1, 0))
        return torch.cat((tokens.unsqueeze(2), beside), 2).flatten(0, 1)

    def unpack(self, packed: torch.Tensor, positions: torch.Tensor) -> Drafted:
        """Views of ``packed`` [bs * B, columns]; positions [bs, B]."""
        bs, block_size, k = *positions.shape, self.candidates
        rows = packed.view(bs, block_size, -1)
        behind = rows[:, 1:]
        transitions = (
            behind[..., 1 + 2 * k :].view(torch.float64).unflatten(2, (k, k)) if self.has_transitions else None
        )
        return Drafted(
            tokens=rows[..., 0],
            positions=positions,
            candidates=behind[..., 1 : 1 + k],
            log_probs=behind[..., 1 + k : 1 + 2 * k].view(torch.float64),
            transitions=transitions,
        )


class Candidates:
    """The draft's path, and K candidates beside it: DFlash, whose path is each position's best."""

    def __init__(self, head, transform: Transform, packing: Packing, block_size: int):
        """transform: what the head's logits go through before they are probabilities."""
        self._head, self._transform, self._packing, self._block_size = head, transform, packing, block_size

    def __call__(self, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """hidden [bs * B, hidden], ids [bs * B] -> packed rows [bs * B, columns] int64."""
        anchors = ids.view(-1, self._block_size)[:, :1]
        log_probs, candidates = self._ranked(behind_anchors(hidden, self._block_size), self._packing.candidates)
        path = torch.cat((anchors, candidates[..., 0]), 1)
        return self._packing.pack(path, candidates, log_probs, None)

    def _ranked(self, rows: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        log_probs, candidates = self._head.ranked(rows, k, self._transform)
        return log_probs.view(-1, self._block_size - 1, k), candidates.view(-1, self._block_size - 1, k)


class SelectedCandidates(Candidates):
    """The same with a selector (DFlash 2): its path, and its scores of neighbouring candidates."""

    def __init__(self, head, path: SelectedPath, packing: Packing, block_size: int):
        super().__init__(head, path.transform, packing, block_size)
        self._path = path

    def __call__(self, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """As ``Candidates``."""
        selector, rows = self._path.selector, behind_anchors(hidden, self._block_size)
        wanted, anchors = self._packing.candidates, ids.view(-1, self._block_size)[:, 0]
        log_probs, candidates = self._ranked(rows, max(wanted, selector.top_k))
        weights = self._path.weights(rows)
        # Log-probabilities are logits less one number a position, which no choice between candidates sees.
        path = self._path.walk(
            anchors, candidates[..., : selector.top_k], log_probs[..., : selector.top_k], weights, Transform(1.0, None)
        )
        log_probs, candidates = log_probs[..., :wanted], candidates[..., :wanted]
        transitions = transition_scores(
            anchors,
            candidates,
            torch.zeros_like(log_probs),
            weights,
            selector.predecessor_codebook,
            selector.successor_codebook,
        )
        return self._packing.pack(path, candidates, log_probs, transitions)
