"""An index over a request's tokens: where its last ones stand earlier, and what followed there. On the host."""

from array import array
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

SHORTEST = 2  # tokens of a match: one alone says too little
LONGEST = 16  # tokens that are compared: a longer match is as good as one of these
PLACES = 64  # looked at per query, the latest first


class Match(NamedTuple):
    """The context's last ``length`` tokens stand before ``end``, too: what follows there may follow here."""

    end: int
    length: int


class ContextIndex:
    """Tokens, and for every end of a pair of them the end before of the same pair, newest first by pair.

    Growing by n tokens costs O(n). About 150 bytes a token.
    """

    def __init__(self, tokens: Iterable[int]):
        self.tokens: list[int] = list(tokens)
        self._previous = array("i")  # [end] -> the end before of the same pair; 0: none
        self._newest: dict[int, int] = {}
        self._build()

    def __len__(self) -> int:
        return len(self.tokens)

    def extend(self, tokens: Iterable[int]) -> None:
        """The context goes on with ``tokens``."""
        own, newest, previous = self.tokens, self._newest, self._previous
        for token in tokens:
            # The pair that ended the context so far has something behind it from now on.
            end = len(own)
            if end >= SHORTEST:
                pair = own[end - 2] << 32 | own[end - 1]
                previous.append(newest.get(pair, 0))
                newest[pair] = end
            else:
                previous.append(0)
            own.append(token)

    def match(self) -> Match | None:
        """The place whose last tokens agree longest with the context's, of the latest ``PLACES``; of equals the latest.

        None where the last two tokens stand nowhere before.
        """
        own, here = self.tokens, len(self.tokens)
        if here <= SHORTEST:
            return None
        end, best, longest = self._newest.get(own[here - 2] << 32 | own[here - 1], 0), 0, SHORTEST - 1
        for _ in range(PLACES):
            if not end:
                break
            if longest < end and own[end - 1 - longest] == own[here - 1 - longest]:
                length, most = SHORTEST, min(end, LONGEST)
                while length < most and own[end - 1 - length] == own[here - 1 - length]:
                    length += 1
                if length > longest:
                    best, longest = end, length
                    if length == LONGEST:
                        break
            end = self._previous[end]
        return Match(best, longest) if best else None

    def continuation(self, end: int, count: int) -> list[int]:
        """``count`` tokens that follow at ``end``; where that runs into the context's end, as if it went round."""
        found = self.tokens[end : end + count]
        period = len(self.tokens) - end
        while len(found) < count:
            found.append(found[len(found) - period])
        return found

    def _build(self) -> None:
        """The whole of a prompt at once."""
        count = len(self.tokens)
        previous = np.zeros(count, dtype=np.int32)
        if count > SHORTEST:
            tokens = np.array(self.tokens, dtype=np.int64)
            pairs = tokens[:-2] << 32 | tokens[1:-1]  # that of ends 2 to count - 1
            order = np.argsort(pairs, kind="stable")
            sorted_pairs, ends = pairs[order], order.astype(np.int32) + SHORTEST
            again = sorted_pairs[1:] == sorted_pairs[:-1]
            previous[ends[1:][again]] = ends[:-1][again]
            last = np.append(~again, True)
            self._newest = dict(zip(sorted_pairs[last].tolist(), ends[last].tolist(), strict=True))
        self._previous.frombytes(previous.tobytes())
