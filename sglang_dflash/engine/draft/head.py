"""An output head over the draft's hidden states: the target's, or the draft's own.

Heads are chosen once, from what the model has. Their greedy token is the first of equal maxima, as
``torch.argmax`` over the whole vocabulary would give, so that every tensor-parallel rank agrees.
"""

from collections.abc import Callable
from typing import Protocol

import torch

from sglang_dflash.errors import DFlashError
from sglang_dflash.host.model_api import get_parallel, should_apply_lm_head_quant_method
from sglang_dflash.host.top_k import choose_top_k
from sglang_dflash.kernels import dense


class DraftHead(Protocol):
    """The best tokens of hidden states [rows, hidden]."""

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """-> token ids [rows] int64, the best."""

    def candidates(self, hidden: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """-> logits [rows, k], descending, and their token ids [rows, k] int64."""

    def ranked(self, hidden: torch.Tensor, k: int, transform: Callable) -> tuple[torch.Tensor, torch.Tensor]:
        """-> log-probabilities [rows, k] fp32 of the best tokens, descending, and their ids [rows, k] int64.

        They are normalised over the whole vocabulary; ``transform`` (monotone) is applied to the logits first.
        """


class WholeHead:
    """An unsharded, dense head. ``matrix``: how ``weight`` is multiplied by, where that is chosen already."""

    def __init__(self, weight: torch.Tensor, matrix: dense.Matrix | None = None):
        self._dtype = weight.dtype
        self._matrix = dense.PlainMatrix(weight) if matrix is None else matrix
        self._top_k = choose_top_k(weight.device.type)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._logits(hidden).argmax(dim=-1)

    def candidates(self, hidden: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._top_k(self._logits(hidden), k)

    def ranked(self, hidden: torch.Tensor, k: int, transform: Callable) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self._logits(hidden).contiguous()
        best, ids = choose_top_k(logits.device.type)(logits, k)
        return transform(best.float()) - transform(logits.float()).logsumexp(-1, keepdim=True), ids

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._matrix.project(hidden.to(self._dtype))


class QuantisedHead(WholeHead):
    """An unsharded head whose logits come from its own quantisation kernel."""

    def __init__(self, lm_head, vocab_size: int):
        self._lm_head, self._vocab_size = lm_head, vocab_size

    def candidates(self, hidden: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self._padded_logits(hidden)
        # A radix selection reads whole rows.
        logits[:, self._vocab_size :] = -torch.inf
        return choose_top_k(logits.device.type)(logits, k)

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._padded_logits(hidden)[:, : self._vocab_size]

    def _padded_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._lm_head.quant_method.apply(self._lm_head, hidden, None)


class ShardedHead:
    """A dense head split over the vocabulary: gather a few (logit, id) per rank, not the logits."""

    def __init__(self, weight: torch.Tensor, first_id: int, group, matrix: dense.Matrix | None = None):
        self._dtype, self._first_id, self._group = weight.dtype, first_id, group
        self._matrix = dense.PlainMatrix(weight) if matrix is None else matrix
        self._top_k = choose_top_k(weight.device.type)

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        best, index = self._matrix.project(hidden.to(self._dtype)).max(dim=-1)
        # Ranks own ascending ranges of ids, so the first rank with the maximum has the lowest id.
        best = self._group.all_gather(best.float().unsqueeze(0), dim=0)
        ids = self._group.all_gather((index + self._first_id).unsqueeze(0), dim=0)
        return ids.gather(0, best.argmax(dim=0, keepdim=True)).squeeze(0)

    def candidates(self, hidden: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        logits, ids = self._top_k(self._matrix.project(hidden.to(self._dtype)), k)
        logits = self._group.all_gather(logits.float(), dim=1)
        ids = self._group.all_gather(ids + self._first_id, dim=1)
        best, index = logits.topk(k)
        return best, ids.gather(1, index)

    def ranked(self, hidden: torch.Tensor, k: int, transform: Callable) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self._matrix.project(hidden.to(self._dtype))
        best, ids = self._top_k(logits, k)
        # The ranks' candidates and sums, never their logits.
        own = transform(logits.float()).logsumexp(-1, keepdim=True)
        best, total = (self._group.all_gather(part, dim=1) for part in (transform(best.float()), own))
        ids = self._group.all_gather(ids + self._first_id, dim=1)
        best, index = best.topk(k)
        return best - total.logsumexp(-1, keepdim=True), ids.gather(1, index)


class MappedHead:
    """A head over a part of the vocabulary: ``to_target`` [rows of the head] int64 are its tokens' ids."""

    def __init__(self, head: DraftHead, to_target: torch.Tensor):
        self._head, self._to_target = head, to_target

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._to_target[self._head(hidden)]

    def candidates(self, hidden: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        logits, ids = self._head.candidates(hidden, k)
        return logits, self._to_target[ids]

    def ranked(self, hidden: torch.Tensor, k: int, transform: Callable) -> tuple[torch.Tensor, torch.Tensor]:
        log_probs, ids = self._head.ranked(hidden, k, transform)
        return log_probs, self._to_target[ids]


def build_head(model) -> DraftHead:
    """The head of ``model`` (its ``lm_head``), as the draft uses it.

    Raises:
        DFlashError: the model has no usable ``lm_head``, or a quantised one split over ranks.
    """
    lm_head = getattr(model, "lm_head", None)
    lm_head = getattr(lm_head, "base_layer", lm_head)
    quant_method = getattr(lm_head, "quant_method", None)
    group = get_parallel().tp_group
    if lm_head is not None and should_apply_lm_head_quant_method(lm_head, quant_method):
        if group.world_size > 1:
            raise DFlashError("lm_head", "is quantised and split over ranks", "use --tp-size 1 or an unquantised head")
        return QuantisedHead(lm_head, int(lm_head.org_vocab_size))
    weight = getattr(lm_head, "weight", None)
    if not isinstance(weight, torch.Tensor) or not weight.is_floating_point():
        raise DFlashError("lm_head", f"of {type(model).__name__} is not usable by a draft", "use another target")
    shard = getattr(lm_head, "shard_indices", None)
    if shard is None:
        return WholeHead(weight, dense.matrix_of(lm_head))
    if int(shard.num_added_elements):
        raise DFlashError("lm_head", "has added (LoRA) vocabulary", "serve without extra vocabulary")
    rows = int(shard.num_org_elements)
    weight, matrix = weight[:rows], dense.matrix_of(lm_head, rows)
    if group.world_size == 1:
        return WholeHead(weight, matrix)
    return ShardedHead(weight, int(shard.org_vocab_start_index), group, matrix)
