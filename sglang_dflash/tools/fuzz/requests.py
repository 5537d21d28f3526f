"""One random request: drawn from a seed, sent, written down and read back."""

import itertools
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.fuzz.features import Draw, Feature
from sglang_dflash.tools.serve.client import Client, generation_of
from sglang_dflash.tools.serve.generation import Generation

# Pieces of a stream that a client reads before it hangs up.
_PIECES = 4
# What plain decoding is asked for beside: log-probabilities tell a tie from a mistake.
BEST = {"return_logprob": True, "top_logprobs_num": 5}


@dataclass(frozen=True)
class Request:
    """What one client sends."""

    prompt: tuple[int, ...]
    sampling: Mapping[str, Any]
    fields: Mapping[str, Any]  # of the request itself: log-probabilities and the like
    features: tuple[str, ...]  # what it was drawn with
    stream: bool = False
    hangs_up: bool = False  # after a few pieces

    @classmethod
    def read(cls, line: str) -> "Request":
        """Of one line that ``written`` made."""
        values = json.loads(line)
        return cls(**values | {"prompt": tuple(values["prompt"]), "features": tuple(values["features"])})

    def written(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def sampled(self) -> bool:
        """Whether tokens are drawn, with a seed."""
        return bool(self.sampling.get("temperature"))

    def without(self, feature: Feature) -> "Request":
        """The same without what ``feature`` added; without a temperature it is greedy."""
        kept = {name: value for name, value in self.sampling.items() if name not in feature.sampling_names}
        return replace(
            self,
            sampling={"temperature": 0.0, **kept},
            fields={name: value for name, value in self.fields.items() if name not in feature.field_names},
            features=tuple(name for name in self.features if name != feature.name),
            stream=self.stream and feature.name != "streamed",
            hangs_up=self.hangs_up and feature.name != "hangs up",
        )


@dataclass(frozen=True)
class Outcome:
    """What came back: an answer, what was read of it, or why it was refused."""

    answer: Generation | None = None
    refusal: str | None = None


def draw_request(
    rng: random.Random, prompts: Sequence[Sequence[int]], features: Sequence[Feature], vocab_size: int, longest: int
) -> Request:
    """A prompt of ``prompts`` and up to four features, answered with up to ``longest`` tokens."""
    sampling: dict[str, Any] = {
        "temperature": 0.0,
        "max_new_tokens": int(longest ** rng.random()),
        "ignore_eos": rng.random() < 0.3,
    }
    fields: dict[str, Any] = {}
    chosen: list[Feature] = []
    context = Draw(rng, vocab_size, sampling["max_new_tokens"])
    for feature in rng.sample(features, min(len(features), rng.choice((0, 1, 1, 2, 2, 3, 4)))):
        if not any(feature.name in one.excludes or one.name in feature.excludes for one in chosen):
            chosen.append(feature)
            sampling |= feature.sampling(context)
            fields |= feature.fields(context)
    names = tuple(feature.name for feature in chosen)
    return Request(tuple(rng.choice(prompts)), sampling, fields, names, "streamed" in names, "hangs up" in names)


def send(client: Client, request: Request, **more: Any) -> Outcome:
    """Send it; ``more`` are further fields."""
    fields = {**more, **request.fields}
    try:
        if request.hangs_up:
            events = client.events(request.prompt, request.sampling, **fields)
            pieces = list(itertools.islice(events, _PIECES))
            events.close()
            return Outcome(generation_of(pieces[-1]))
        return Outcome(client.generate(request.prompt, request.sampling, stream=request.stream, **fields))
    except DFlashError as error:
        if error.field != "request":
            raise
        return Outcome(refusal=error.problem)
