"""What requests are mixed of: each feature adds to a request's sampling parameters, or to its other fields."""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Draw:
    """What a feature's values are drawn from."""

    rng: random.Random
    vocab_size: int
    tokens: int  # that the answer may have

    def token(self) -> int:
        """Any id; the first, which answers are full of, as often as the others together."""
        return self.rng.randrange(self.vocab_size if self.rng.random() < 0.5 else min(self.vocab_size, 256))


Values = Callable[[Draw], Mapping[str, Any]]


def _nothing(_: Draw) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Feature:
    """One thing that a request can ask for."""

    name: str
    sampling: Values = _nothing
    fields: Values = _nothing
    sampling_names: tuple[str, ...] = ()  # of the parameters that it adds
    field_names: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()  # features beside which it is not


_PENALTIES = ("frequency penalty", "presence penalty", "repetition penalty")
_GRAMMARS = ("json schema", "regex", "ebnf")
_STOPS = ("\n", " ", ".", "e", "1", "a ", ", ", "th")
_SCHEMAS = (
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}}, "required": ["a", "b"]},
    {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 4},
    {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}}, "required": ["name"]},
    {"enum": ["red", "green", "blue"]},
)
_REGEXES = ("[a-z]{3,9}", "(yes|no)( indeed)?", "[0-9]{1,3}(, [0-9]{1,3}){0,4}", "The [a-z ]{2,30}\\.")
_EBNFS = ('root ::= "a" [0-9]+ "b"?', 'root ::= ("x" | "yz")+ "."')


def _json_schema(draw: Draw) -> Mapping[str, Any]:
    return {"json_schema": json.dumps(draw.rng.choice(_SCHEMAS))}


def _grammar(name: str, values: Values) -> Feature:
    # Asked to go on behind a grammar's end, plain decoding adds one token, without a mask, before it ends.
    names = (name.replace(" ", "_"), "ignore_eos")
    return Feature(name, lambda d: {"ignore_eos": False, **values(d)}, sampling_names=names, excludes=_GRAMMARS)


def _one(name: str, values: Callable[[Draw], Any], excludes: tuple[str, ...] = (), parameter: str = "") -> Feature:
    parameter = parameter or name.replace(" ", "_")
    return Feature(name, lambda draw: {parameter: values(draw)}, sampling_names=(parameter,), excludes=excludes)


def _logprobs(draw: Draw) -> Mapping[str, Any]:
    asked: dict[str, Any] = {"return_logprob": True}
    if draw.rng.random() < 0.6:
        asked["top_logprobs_num"] = draw.rng.randint(1, 5)
    if draw.rng.random() < 0.4:
        asked["token_ids_logprob"] = sorted({draw.token() for _ in range(3)})
    if draw.rng.random() < 0.3:
        asked["logprob_start_len"] = 0
    return asked


def _sampled(draw: Draw) -> Mapping[str, Any]:
    # Each filters: with a seed, SGLang's noise goes by rank where any request of a batch filters, else by token.
    filters = {"top_k": draw.rng.choice((2, 8, 40))}
    if draw.rng.random() < 0.5:
        filters["top_p"] = draw.rng.choice((0.5, 0.9, 0.99))
    return {"temperature": draw.rng.choice((0.4, 0.9, 1.5)), "sampling_seed": draw.rng.getrandbits(31), **filters}


FEATURES = (
    Feature("sampled", _sampled, sampling_names=("temperature", "sampling_seed", "top_k", "top_p")),
    # One a request: SGLang applies several in an order that differs from process to process.
    _one("frequency penalty", lambda d: d.rng.choice((-0.5, 0.3, 1.2, 2.0)), _PENALTIES),
    _one("presence penalty", lambda d: d.rng.choice((-0.5, 0.5, 1.5)), _PENALTIES),
    _one("repetition penalty", lambda d: d.rng.choice((0.7, 1.1, 1.5)), _PENALTIES),
    _one("min new tokens", lambda d: d.rng.randint(1, d.tokens)),
    _one("logit bias", lambda d: {str(d.token()): d.rng.uniform(-6, 6) for _ in range(3)}),
    _one("stop", lambda d: d.rng.sample(_STOPS, d.rng.randint(1, 3))),
    _one("stop token ids", lambda d: [d.token() for _ in range(3)]),
    _one("stop regex", lambda d: d.rng.choice(("[0-9]{2}", "[.,]", "an?d"))),
    _grammar("json schema", _json_schema),
    _grammar("regex", lambda d: {"regex": d.rng.choice(_REGEXES)}),
    _grammar("ebnf", lambda d: {"ebnf": d.rng.choice(_EBNFS)}),
    Feature(
        "log-probabilities",
        fields=_logprobs,
        field_names=("return_logprob", "top_logprobs_num", "token_ids_logprob", "logprob_start_len"),
    ),
    Feature("hidden states", fields=lambda d: {"return_hidden_states": True}, field_names=("return_hidden_states",)),
    Feature("streamed"),
    Feature("hangs up", excludes=("log-probabilities", "hidden states")),
    _one("no special tokens", lambda d: d.rng.random() < 0.5, parameter="skip_special_tokens"),
    _one("stop kept", lambda d: True, parameter="no_stop_trim"),
)

# Requests that must be refused, each with what is wrong.
MALFORMED: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("temperature below zero", {"temperature": -1.0}),
    ("top_p above one", {"temperature": 1.0, "top_p": 1.5}),
    ("no tokens at all", {"max_new_tokens": -3}),
    ("more tokens at least than at most", {"min_new_tokens": 9, "max_new_tokens": 3}),
    ("a penalty out of range", {"frequency_penalty": 9.0}),
    ("a bias outside the vocabulary", {"logit_bias": {"99999999": 1.0}}),
    ("a schema that is none", {"json_schema": "{"}),
    ("a regex that is none", {"regex": "(["}),
)
