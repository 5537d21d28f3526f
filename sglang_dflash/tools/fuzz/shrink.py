"""A failing round made small: fewer companions, fewer features, fewer tokens, as long as it still fails."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from sglang_dflash.tools.fuzz.features import FEATURES
from sglang_dflash.tools.fuzz.requests import Request

Fails = Callable[[Sequence[Request]], bool]  # does the first request of these still go wrong, all in flight at once?


def shrink(failing: Request, others: Sequence[Request], fails: Fails, tries: int = 40) -> tuple[Request, ...]:
    """The failing request first, then the companions that it needs; at most ``tries`` runs."""
    left = _Tries(fails, tries)
    companions = list(others)
    if left.fail((failing,)):
        companions = []
    size = len(companions)
    while size:
        # Halves, then quarters, ...: what can go goes.
        for start in range(0, len(companions), size):
            fewer = companions[:start] + companions[start + size :]
            if len(fewer) < len(companions) and left.fail((failing, *fewer)):
                companions = fewer
                break
        else:
            size //= 2
    for smaller in _simpler(failing, left, companions):
        failing = smaller
    return failing, *companions


def _simpler(request: Request, left: "_Tries", companions: list[Request]):
    for feature in FEATURES:
        if feature.name in request.features:
            candidate = request.without(feature)
            if left.fail((candidate, *companions)):
                request = candidate
                yield request
    for part in (8, 4, 2):
        tokens = request.sampling["max_new_tokens"] // part
        shorter = replace(request, sampling={**request.sampling, "max_new_tokens": max(1, tokens)})
        if tokens and left.fail((shorter, *companions)):
            request = shorter
            yield request
            break
    for part in (8, 4, 2):
        tail = request.prompt[-(len(request.prompt) // part or 1) :]
        if len(tail) < len(request.prompt) and left.fail((replace(request, prompt=tail), *companions)):
            yield replace(request, prompt=tail)
            break


class _Tries:
    def __init__(self, fails: Fails, count: int):
        self._fails, self._count = fails, count

    def fail(self, requests: Sequence[Request]) -> bool:
        """Whether they fail; False once the tries are used up."""
        if not self._count:
            return False
        self._count -= 1
        return self._fails(requests)
