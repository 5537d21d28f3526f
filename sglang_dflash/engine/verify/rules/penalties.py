"""Frequency, presence and repetition penalties, and ends that are banned before ``min_new_tokens``.

They look at what a request has emitted, the prompt left out, as in SGLang: additive ones first, then the scaling one.
Plain decoding under overlap scheduling is one token behind; these are not, and agree with plain decoding without it.
"""

import itertools
import weakref
from typing import Any, NamedTuple

import torch

from sglang_dflash.engine.verify.rules.counts import EmittedCounts, on_device
from sglang_dflash.engine.verify.rules.rule import Rule
from sglang_dflash.kernels import visibility
from sglang_dflash.types import Acceptance, Proposal


class _Asked(NamedTuple):
    """What one request asks for; ``number`` tells requests apart for good."""

    number: int
    row: int  # of its counts; 0: it has no penalty
    frequency: float
    presence: float
    repetition: float
    shortest: int  # prompt and ``min_new_tokens`` together: shorter contexts do not end
    ends: tuple[int, ...]  # tokens that are banned until then


class _Batch(NamedTuple):
    """``_Asked`` of a batch, on the device. ``added`` and ``scales`` tell whether any request has such a penalty."""

    rows: torch.Tensor  # [bs] int64
    frequency: torch.Tensor  # [bs, 1] float32, like the next two
    presence: torch.Tensor
    repetition: torch.Tensor
    shortest: torch.Tensor  # [bs] int64
    ends: torch.Tensor  # [bs, most ends] int64, the last one repeated
    added: bool
    scales: bool


_NOTHING = _Asked(0, 0, 0.0, 0.0, 1.0, 0, ())


class Penalties(Rule):
    """Counts live on the device; a node's are those of its request and of the tokens on its path."""

    def __init__(self, vocab_size: int, device: torch.device):
        self._vocab_size, self._device = vocab_size, device
        self._counts = EmittedCounts(vocab_size, device)
        self._asked: weakref.WeakKeyDictionary[Any, _Asked] = weakref.WeakKeyDictionary()
        self._numbers = itertools.count(1)
        self._visibility = visibility.choose(device.type)
        self._last: tuple[tuple[int, ...], _Batch | None] = ((), None)
        self._chains: dict[int, torch.Tensor] = {}

    def wanted(self, batch) -> bool:
        """SGLang makes a [bs, V] tensor of its own penalties where a request has one."""
        return batch.sampling_info is not None and batch.sampling_info.acc_additive_penalties is not None

    def apply(self, logits: torch.Tensor, batch, proposal: Proposal) -> None:
        """logits [bs, W, V]."""
        asked, tokens = self._of(batch), proposal.tokens
        if asked.added or asked.scales:
            counts = self._counts.of(asked.rows)
            # What the path adds changes the logits of its own tokens only: those are computed apart.
            nodes = tokens.unsqueeze(1).expand(-1, tokens.shape[1], -1)
            on_path = counts.gather(1, tokens).unsqueeze(1) + self._times_on_path(proposal)
            changed = self._penalised(logits.gather(2, nodes), on_path, asked)
            logits.copy_(self._penalised(logits, counts.unsqueeze(1), asked))
            logits.scatter_(2, nodes, changed)
        self._ban_ends(logits, proposal.positions + 1, asked)

    def commit(self, batch, accepted: Acceptance) -> None:
        """Count what the round emitted."""
        asked = self._of(batch)
        if asked.added or asked.scales:
            self._counts.add_accepted(asked.rows, accepted)

    def before_prefill(self, batch) -> None:
        """SGLang's own counts start anew after a retraction, and a decoding request's may be a token behind."""
        decoding = batch.decoding_reqs or ()
        for req in batch.reqs:
            if self._asked_by(req).row and req not in decoding:
                self._counts.restart(req)
        asked, info = self._of(batch), batch.sampling_info
        counts = self._counts.of(asked.rows)
        added = _added(counts, asked)
        # Of unequal lengths in SGLang, [bs] here: one row, for the next token.
        self._ban_ends(added.unsqueeze(1), batch.seq_lens.unsqueeze(1), asked)
        info.acc_additive_penalties = added
        info.acc_scaling_penalties = _scale(counts, asked) if asked.scales else None

    def after_prefill(self, batch, tokens: torch.Tensor) -> None:
        """Count the first tokens; of a prompt whose chunks are not all done until its next chunk."""
        asked = self._of(batch)
        if asked.added or asked.scales:
            self._counts.add(asked.rows, tokens.long())

    def _penalised(self, logits: torch.Tensor, counts: torch.Tensor, asked: _Batch) -> torch.Tensor:
        """logits [bs, W, N] of tokens that were emitted ``counts`` times [bs, 1 or W, N]."""
        one_node = asked._replace(**{name: getattr(asked, name).unsqueeze(1) for name in _PENALTIES})
        if asked.added:
            logits = logits + _added(counts, one_node)
        if asked.scales:
            scale = _scale(counts, one_node)
            logits = torch.where(logits < 0, logits * scale, logits / scale)
        return logits

    def _times_on_path(self, proposal: Proposal) -> torch.Tensor:
        """[bs, W, W] float32: how often node j's token is emitted on the way from the anchor, left out, to node i."""
        tokens = proposal.tokens
        equal = (tokens.unsqueeze(2) == tokens.unsqueeze(1)).float()
        if proposal.parents is None:
            return self._chain(tokens.shape[1]) @ equal
        seen = self._visibility(proposal.parents).float()
        seen[:, :, 0] = 0
        return seen @ equal

    def _chain(self, width: int) -> torch.Tensor:
        """[W, W]: whether node j is on the path to node i, the anchor left out."""
        if width not in self._chains:
            seen = torch.ones(width, width, device=self._device).tril()
            seen[:, 0] = 0
            self._chains[width] = seen
        return self._chains[width]

    def _ban_ends(self, logits: torch.Tensor, lengths: torch.Tensor, asked: _Batch) -> None:
        """logits [bs, W, V] after contexts of ``lengths`` [bs, W] tokens."""
        if not asked.ends.shape[1]:
            return
        too_short = (lengths < asked.shortest.unsqueeze(1)).unsqueeze(2)
        ends = asked.ends.unsqueeze(1).expand(-1, logits.shape[1], -1)
        logits.scatter_(2, ends, logits.gather(2, ends).masked_fill(too_short, -torch.inf))

    def _of(self, batch) -> _Batch:
        """Made anew where the batch's requests are others than last time."""
        each = [self._asked_by(req) for req in batch.reqs]
        numbers = tuple(asked.number for asked in each)
        if self._last[1] is None or self._last[0] != numbers:
            self._last = numbers, self._on_device(each)
        assert self._last[1] is not None
        return self._last[1]

    def _on_device(self, each: list[_Asked]) -> _Batch:
        most = max(len(asked.ends) for asked in each)
        ends = [(*asked.ends, *(asked.ends[-1:] or (0,)) * (most - len(asked.ends))) for asked in each]

        def tensor(values: list, dtype: torch.dtype) -> torch.Tensor:
            return on_device(values, dtype, self._device)

        def column(name: str) -> torch.Tensor:
            return tensor([[getattr(asked, name)] for asked in each], torch.float32)

        return _Batch(
            rows=tensor([asked.row for asked in each], torch.int64),
            frequency=column("frequency"),
            presence=column("presence"),
            repetition=column("repetition"),
            shortest=tensor([asked.shortest for asked in each], torch.int64),
            ends=tensor(ends, torch.int64),
            added=any(asked.frequency or asked.presence for asked in each),
            scales=any(asked.repetition != 1 for asked in each),
        )

    def _asked_by(self, req) -> _Asked:
        asked = self._asked.get(req)
        if asked is None:
            asked = self._asked[req] = self._read(req)
        return asked

    def _read(self, req) -> _Asked:
        params = req.sampling_params
        penalties = (params.frequency_penalty, params.presence_penalty, params.repetition_penalty)
        row = self._counts.row_of(req) if penalties != (0.0, 0.0, 1.0) else 0
        if not row and params.min_new_tokens <= 0:
            return _NOTHING
        ends = end_tokens(req, self._vocab_size) if params.min_new_tokens > 0 else ()
        shortest = len(req.origin_input_ids) + params.min_new_tokens if ends else 0
        return _Asked(next(self._numbers), row, *penalties, shortest, ends)


_PENALTIES = ("frequency", "presence", "repetition")


def _added(counts: torch.Tensor, asked: _Batch) -> torch.Tensor:
    return -(counts * asked.frequency + (counts > 0) * asked.presence)


def _scale(counts: torch.Tensor, asked: _Batch) -> torch.Tensor:
    return torch.where(counts > 0, asked.repetition, 1.0)


def end_tokens(req, vocab_size: int) -> tuple[int, ...]:
    """What may end ``req``: its own stop tokens, the model's and the tokenizer's."""
    tokenizer = req.tokenizer
    ends = set(req.sampling_params.stop_token_ids or ()) | set(req.eos_token_ids or ())
    if tokenizer is not None:
        ends |= set(tokenizer.additional_stop_token_ids or ()) | {tokenizer.eos_token_id}
    return tuple(sorted(end for end in ends if end is not None and 0 <= end < vocab_size))
