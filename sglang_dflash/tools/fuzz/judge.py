"""Is one server's answer plain decoding's? Tokens, text, counts, reasons to end, log-probabilities, hidden states."""

import json
import re
from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from sglang_dflash.tools.bench.equality import TIE, first_difference
from sglang_dflash.tools.fuzz.requests import Outcome, Request
from sglang_dflash.tools.serve.generation import Generation

# Of a log-probability, and of a hidden state relative to the largest: float32 in another order of additions.
LOGPROB, HIDDEN = 2e-3, 2e-3
_COUNTS = ("prompt_tokens", "completion_tokens")
_ONE_EACH = ("input_token_logprobs", "output_token_logprobs")
_SOME_EACH = (
    "input_top_logprobs",
    "output_top_logprobs",
    "input_token_ids_logprobs",
    "output_token_ids_logprobs",
)


class Verdict(Enum):
    """What a comparison found."""

    SAME = "same"
    TIE = "tie"
    REFUSED = "refused"  # by the other server, with a reason; plain decoding serves it
    WRONG = "wrong"


class Finding(NamedTuple):
    """A verdict, and what differs."""

    verdict: Verdict
    what: str = ""


def judge(request: Request, plain: Outcome, other: Outcome) -> Finding:
    """``plain`` was asked for its best tokens, too (``requests.BEST``)."""
    if plain.answer is None or other.answer is None:
        if plain.answer is None and other.answer is None:
            return Finding(Verdict.SAME)
        if plain.answer is None:
            return Finding(Verdict.WRONG, f"served, where plain decoding refuses: {plain.refusal}")
        return Finding(Verdict.REFUSED, other.refusal or "")
    if request.hangs_up:
        return _prefix(request, plain.answer, other.answer)
    parted = first_difference(plain.answer.token_ids, other.answer.token_ids)
    if parted is not None:
        return _parted(request, plain.answer, other.answer, parted)
    for problem in _beside(request, plain.answer, other.answer):
        return Finding(Verdict.WRONG, problem)
    return Finding(Verdict.SAME)


def _prefix(request: Request, plain: Generation, other: Generation) -> Finding:
    count = min(len(plain.token_ids), len(other.token_ids))
    parted = first_difference(plain.token_ids[:count], other.token_ids[:count])
    return Finding(Verdict.SAME) if parted is None else _parted(request, plain, other, parted)


def _parted(request: Request, plain: Generation, other: Generation, at: int) -> Finding:
    got, want = (tokens[at] if at < len(tokens) else None for tokens in (other.token_ids, plain.token_ids))
    if _ties(request, plain, at, want, got):
        return Finding(Verdict.TIE, f"token {at}: {got} or {want}")
    ends = f"{len(other.token_ids)} tokens ({_reason(other)}), plain {len(plain.token_ids)} ({_reason(plain)})"
    return Finding(Verdict.WRONG, f"token {at} is {got} instead of {want}; {ends}")


def _ties(request: Request, plain: Generation, at: int, want: int | None, got: int | None) -> bool:
    """Whether plain decoding can hardly tell the two apart; with a seed, noise goes by rank, which a tie changes."""
    rows = plain.meta.get("output_top_logprobs") or []
    if want is None or got is None or at >= len(rows):
        return False
    best = {row[1]: row[0] for row in rows[at]}
    if got not in best or want not in best:
        return False
    if not request.sampled:
        return abs(best[got] - best[want]) < TIE
    return any(abs(best[one] - value) < TIE for one in (got, want) for token, value in best.items() if token != one)


def _beside(request: Request, plain: Generation, other: Generation):
    """Problems beside the tokens, which are the same."""
    if plain.text != other.text:
        yield f"the text is {other.text!r} instead of {plain.text!r}"
    if _reason(plain) != _reason(other):
        yield f"ended by {_reason(other)} instead of {_reason(plain)}"
    for name in _COUNTS:
        if plain.meta.get(name) != other.meta.get(name):
            yield f"{name} is {other.meta.get(name)} instead of {plain.meta.get(name)}"
    if problem := invalid(request, other):
        yield problem
    if "return_logprob" in request.fields:
        yield from _logprobs(request, plain, other)
    if "return_hidden_states" in request.fields:
        yield from _hidden(plain, other)


def _reason(answer: Generation) -> str:
    return json.dumps(answer.meta.get("finish_reason"), sort_keys=True)


def invalid(request: Request, answer: Generation) -> str | None:
    """Why a whole answer does not keep to the request's grammar; None where it does, or was cut short."""
    if answer.finish_reason != "stop" or {"stop", "stop_token_ids", "stop_regex"} & set(request.sampling):
        return None
    if request.sampling.get("no_stop_trim") and request.sampling.get("skip_special_tokens") is False:
        return None  # the text shows the token that ended it, which is not of the grammar
    if pattern := request.sampling.get("regex"):
        return None if re.fullmatch(pattern, answer.text) else f"{answer.text!r} does not match {pattern!r}"
    if schema := request.sampling.get("json_schema"):
        try:
            from jsonschema import ValidationError, validate

            validate(json.loads(answer.text), json.loads(schema))
        except (ValueError, ValidationError) as error:
            return f"{answer.text!r} is not of its schema: {str(error).splitlines()[0]}"
    return None


def _logprobs(request: Request, plain: Generation, other: Generation):
    for name in _ONE_EACH:
        yield from _rows(name, [[row] for row in plain.meta.get(name) or []], [[r] for r in other.meta.get(name) or []])
    for name in _SOME_EACH:
        if name.endswith("top_logprobs"):
            asked = request.fields.get("top_logprobs_num")
        else:
            asked = request.fields.get("token_ids_logprob")
        if asked:
            count = asked if isinstance(asked, int) else None
            yield from _rows(name, plain.meta.get(name) or [], other.meta.get(name) or [], count)


def _rows(name: str, plain: Sequence[Any], other: Sequence[Any], count: int | None = None):
    """``count``: entries of each place to compare, by value, since those nearly alike may change places."""
    if len(plain) != len(other):
        yield f"{name} has {len(other)} places instead of {len(plain)}"
        return
    for at, (wanted, given) in enumerate(zip(plain, other, strict=True)):
        wanted, given = (wanted or [])[:count], (given or [])[:count]
        if len(wanted) != len(given):
            yield f"{name} at {at} has {len(given)} entries instead of {len(wanted)}"
            return
        for (value, token, *_), (got, got_token, *_) in zip(wanted, given, strict=True):
            if not _near(value, got) or (token != got_token and count is None):
                yield f"{name} at {at}: {got} of {got_token} instead of {value} of {token}"
                return


def _near(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) < LOGPROB * max(1.0, abs(one)) or one == other


def _hidden(plain: Generation, other: Generation):
    wanted, given = (_flat(answer.meta.get("hidden_states") or []) for answer in (plain, other))
    if wanted.shape != given.shape:
        yield f"hidden_states are {given.shape} instead of {wanted.shape}"
    elif wanted.size and np.abs(wanted - given).max() > HIDDEN * np.abs(wanted).max():
        yield f"hidden_states are up to {np.abs(wanted - given).max():.1e} away"


def _flat(states: Sequence[Any]) -> np.ndarray:
    """[tokens, hidden] of a prompt's rows and one row for each step."""
    rows: list[Any] = []
    for part in states:
        rows += part if part and isinstance(part[0], list) else [part]
    return np.asarray(rows, dtype=np.float64)
