"""Custom logit processors: called with a row per node, and with the request as it would be after the node's path.

A processor may read ``params["__req__"]``, SGLang's request. Each row gets a stand-in whose ``output_ids`` end with
what the round before emitted, should the host not know it yet, and with the path. Both are copied from the device
when a processor first reads ``output_ids``; one that does not costs no wait. What a processor writes into its
parameters is gone after the call: a node may never be emitted.
"""

from array import array
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from sglang_dflash.engine.verify.rules.rule import Rule
from sglang_dflash.host.processor_api import REQUEST, run_processors
from sglang_dflash.types import Acceptance, Proposal


class RequestAtNode:
    """A request that has emitted ``tail()`` as well; all else is the request's own."""

    def __init__(self, req, tail: Callable[[], list[int]]):
        self._req, self._tail = req, tail

    @property
    def output_ids(self) -> array:
        """The emitted tokens, in a container like SGLang's."""
        return self._req.output_ids + array("q", self._tail())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._req, name)


class _Emission(NamedTuple):
    """What the last pass emitted, on the device."""

    rows: dict[str, int]  # request id -> row
    tokens: torch.Tensor  # [bs, D] int64
    lens: torch.Tensor | None  # [bs] int32; None: all of them


class _Contexts:
    """Emitted tokens of a pass's rows beyond what the host knows, read when first asked for."""

    def __init__(self, batch, lengths: torch.Tensor, last: _Emission | None, proposal: Proposal | None):
        """lengths [bs]: tokens of each request's context, the anchor included."""
        self._batch, self._lengths, self._last, self._proposal = batch, lengths, last, proposal
        self._unknown: list[list[int]] | None = None
        self._nodes: tuple[list, list] = ([], [])

    def tail(self, row: int, node: int) -> list[int]:
        """What request ``row`` has emitted at ``node`` beyond its ``output_ids``."""
        if self._unknown is None:
            self._unknown = self._read_unknown()
            if self._proposal is not None:
                tokens, parents = self._proposal.tokens, self._proposal.parents
                self._nodes = tokens.tolist(), [] if parents is None else parents.tolist()
        return self._unknown[row] + self._path(row, node)

    def _path(self, row: int, node: int) -> list[int]:
        path: list[int] = []
        tokens, parents = self._nodes
        while node > 0:
            path.append(tokens[row][node])
            node = parents[row][node] if parents else node - 1
        return path[::-1]

    def _read_unknown(self) -> list[list[int]]:
        counts = [
            max(0, length - len(req.origin_input_ids) - len(req.output_ids))
            for req, length in zip(self._batch.reqs, self._lengths.tolist(), strict=True)
        ]
        if not any(counts):
            return [[] for _ in counts]
        assert self._last is not None, "tokens were emitted by a pass that this rule has not heard of"
        emitted = self._last.tokens.tolist()
        lens = [len(row) for row in emitted] if self._last.lens is None else self._last.lens.tolist()
        rows = [self._last.rows.get(req.rid) for req in self._batch.reqs]
        return [
            [] if not count or row is None else emitted[row][: lens[row]][-count:]
            for count, row in zip(counts, rows, strict=True)
        ]


class Processors(Rule):
    """The custom logit processors of a batch's requests."""

    def __init__(self) -> None:
        self._last: _Emission | None = None

    def wanted(self, batch) -> bool:
        """SGLang keeps the batch's processors, where there are any."""
        return batch.sampling_info is not None and batch.sampling_info.has_custom_logit_processor

    def apply(self, logits: torch.Tensor, batch, proposal: Proposal) -> None:
        """logits [bs, W, V]."""
        contexts = _Contexts(batch, batch.seq_lens + 1, self._last, proposal)
        width = logits.shape[1]
        params = _params(batch, width, contexts)
        run_processors(logits.view(-1, logits.shape[-1]), batch.sampling_info, width, params)

    def commit(self, batch, accepted: Acceptance) -> None:
        """The next round may come before the host knows what this one emitted."""
        self._last = _Emission(_rows(batch), accepted.emitted, accepted.commit_lens)

    def before_prefill(self, batch) -> None:
        """SGLang's sampler runs the processors; the host may not know the last tokens of requests that decode."""
        batch.sampling_info.custom_params = _params(batch, 1, _Contexts(batch, batch.seq_lens, self._last, None))

    def after_prefill(self, batch, tokens: torch.Tensor) -> None:
        """As ``commit``."""
        self._last = _Emission(_rows(batch), tokens.view(-1, 1), None)


def _rows(batch) -> dict[str, int]:
    return {req.rid: row for row, req in enumerate(batch.reqs)}


def _params(batch, width: int, contexts: _Contexts) -> list[Any]:
    """One entry per row [bs * width]."""
    return [
        own | {REQUEST: RequestAtNode(req, lambda row=row, node=node: contexts.tail(row, node))}  # type: ignore[misc]
        if isinstance(own, dict) and REQUEST in own
        else own
        for row, (req, own) in enumerate(zip(batch.reqs, batch.sampling_info.custom_params, strict=True))
        for node in range(width)
    ]
