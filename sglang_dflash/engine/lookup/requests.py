"""The contexts of a batch's requests, as far as the host knows them, and what may follow."""

import math
import weakref
from itertools import accumulate
from typing import NamedTuple

from sglang_dflash.engine.lookup.index import ContextIndex
from sglang_dflash.engine.lookup.survival import RequestSurvival, SharedSurvival


class Follows(NamedTuple):
    """What may follow a request's first ``known`` tokens."""

    known: int
    tokens: list[int]
    log_chances: list[float]  # of each token, given those before it


class _Context:
    """Of one request: its index, and the match that was found last."""

    def __init__(self, req, shared: SharedSurvival):
        self._prompt, self._emitted = len(req.origin_input_ids), len(req.output_ids)
        self._index = ContextIndex([*req.origin_input_ids, *req.output_ids])
        self._survival = RequestSurvival(shared)
        self._match = self._index.match()

    def is_of(self, req) -> bool:
        """Whether the request only went on since: an abort replaces the prompt, embedded prompts forget answers."""
        return len(req.origin_input_ids) == self._prompt and len(req.output_ids) >= self._emitted

    def catch_up(self, req) -> None:
        """Read what the request has emitted since, and what became of the last match."""
        if len(req.output_ids) == self._emitted:
            return
        before = len(self._index)
        self._index.extend(req.output_ids[self._emitted :])
        self._emitted = len(req.output_ids)
        if self._match is not None:
            self._survival.learn(self._index.tokens, before, self._match)
        self._match = self._index.match()

    def follows(self, count: int, vocab_size: int) -> Follows:
        """Up to ``count`` tokens, none where nothing matches."""
        known = len(self._index)
        if self._match is None or count < 1:
            return Follows(known, [], [])
        tokens = self._index.continuation(self._match.end, count)
        # Images and the like stand in prompts as ids that no embedding has.
        if max(tokens) >= vocab_size:
            tokens = tokens[: next(i for i, token in enumerate(tokens) if token >= vocab_size)]
        return Follows(known, tokens, self._survival.log_chances(self._match.length, len(tokens)) if tokens else [])


class RequestContexts:
    """Indices by request, built in its first round and dropped with it."""

    def __init__(self, vocab_size: int):
        """vocab_size: tokens that the target can be given."""
        self._vocab_size = vocab_size
        self._shared = SharedSurvival()
        self._contexts: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

    def follows(self, reqs, count: int) -> list[Follows]:
        """For each of the requests up to ``count`` tokens, none that it could not emit before its answer's end."""
        return [self._of(req).follows(min(count, _room(req)), self._vocab_size) for req in reqs]

    def expected(self, reqs, count: int) -> list[list[float]]:
        """Of each request's continuation: how many of its first 0, 1, 2, ... ``count`` tokens will be kept."""
        out = []
        for found in self.follows(reqs, count):
            chances = [math.exp(chance) for chance in accumulate(found.log_chances)]
            out.append(list(accumulate(chances + [0.0] * (count - len(chances)), initial=0.0)))
        return out

    def _of(self, req) -> _Context:
        context = self._contexts.get(req)
        if context is None or not context.is_of(req):
            context = self._contexts[req] = _Context(req, self._shared)
        else:
            context.catch_up(req)
        return context


def _room(req) -> int:
    """Drafted tokens that can still be kept: the target's own follows them."""
    return req.sampling_params.max_new_tokens - len(req.output_ids) - 1
