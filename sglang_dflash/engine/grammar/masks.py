"""Vocabulary masks: what a request's grammar forbids after a node's path is never chosen there."""

from collections.abc import Callable
from functools import partial

import torch

from sglang_dflash.engine.grammar.walk import guide, visit
from sglang_dflash.engine.verify.rules.rule import Rule
from sglang_dflash.host.grammar_api import GrammarCursor, GrammarMask, empty_mask
from sglang_dflash.types import Proposal


class GrammarRule(Rule):
    """Constrained decoding: JSON schemas, expressions, grammars, structural tags, and reasoning before them.

    The masks are written on the host while the verify pass runs. With ``guides`` the proposal is read before that, and
    drafted tokens that a grammar forbids give way to those that it forces; batches with a grammar then wait for the
    draft's pass.
    """

    def __init__(self, follow: Callable[..., GrammarCursor], guides: bool):
        """follow: makes a cursor of (a request's grammar, vocabulary size)."""
        self._follow, self._guides = follow, guides
        # Has SGLang move the grammars over what the round before emitted; set for every pass, None where it has.
        self.catch_up: Callable[[], None] | None = None
        self._nodes: HostNodes  # of the round that runs

    def wanted(self, batch) -> bool:
        """SGLang knows whether a request has one."""
        return batch.has_grammar

    def before_prefill(self, batch) -> None:
        """A mixed batch decodes as well, under masks of what was emitted before."""
        if batch.decoding_reqs:
            self._catch_up()

    def revise(self, batch, proposal: Proposal) -> Proposal:
        """``proposal`` with what the grammars force in the place of what they forbid."""
        self._nodes = HostNodes(proposal)
        if not self._guides:
            return proposal
        self._catch_up()
        tokens, parents = self._nodes.lists()
        guided = [
            row if cursor is None else guide(cursor, row, above)
            for cursor, row, above in zip(self._cursors(batch), tokens, parents, strict=True)
        ]
        if guided == tokens:
            return proposal
        return proposal._replace(tokens=self._nodes.replace(guided).to(proposal.tokens.device, non_blocking=True))

    def apply(self, logits: torch.Tensor, batch, proposal: Proposal) -> None:
        """Forbidden tokens of every node get -inf; nodes that a grammar does not reach stay: none is accepted."""
        self._catch_up()
        bs, width, vocab_size = logits.shape
        tokens, parents = self._nodes.lists()
        some = next(req.grammar for req in batch.reqs if req.grammar is not None)
        mask = empty_mask(some, batch.sampling_info.vocab_size, bs * width)
        for i, cursor in enumerate(self._cursors(batch)):
            if cursor is not None:
                visit(cursor, tokens[i], parents[i], partial(_fill, cursor, mask, i * width))
        GrammarMask(some, mask.to(logits.device, non_blocking=True)).apply(logits.view(-1, vocab_size))

    def _catch_up(self) -> None:
        if self.catch_up is not None:
            self.catch_up()
            self.catch_up = None

    def _cursors(self, batch) -> list[GrammarCursor | None]:
        """Of every request; None where it has no grammar."""
        vocab_size = batch.sampling_info.vocab_size
        return [None if req.grammar is None else self._follow(req.grammar, vocab_size) for req in batch.reqs]


def _fill(cursor: GrammarCursor, mask: torch.Tensor, root: int, node: int) -> None:
    cursor.fill(mask, root + node)


class HostNodes:
    """A proposal's nodes on the host: the copy begins here, and nothing launched later is waited for."""

    def __init__(self, proposal: Proposal):
        tokens, parents = proposal.tokens, proposal.parents
        self._tokens, self._parents = _to_host(tokens), None if parents is None else _to_host(parents)
        self._copied = None if tokens.device.type == "cpu" else torch.Event(tokens.device)
        if self._copied is not None:
            self._copied.record()

    def lists(self) -> tuple[list[list[int]], list[list[int]]]:
        """Tokens and parents of every request."""
        if self._copied is not None:
            self._copied.synchronize()
        chain = list(range(-1, self._tokens.shape[1] - 1))
        parents = [chain] * len(self._tokens) if self._parents is None else self._parents.tolist()
        return self._tokens.tolist(), parents

    def replace(self, tokens: list[list[int]]) -> torch.Tensor:
        """Take ``tokens`` instead; as a tensor [bs, W] int64 on the host, pinned where they go to a GPU."""
        self._tokens = torch.tensor(tokens, dtype=torch.int64, pin_memory=self._copied is not None)
        return self._tokens


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type == "cpu":
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
