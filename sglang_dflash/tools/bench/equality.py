"""Whether all systems gave the same tokens; nothing is compared in speed before."""

from collections.abc import Sequence
from typing import NamedTuple

from sglang_dflash.tools.bench.measure import Turn
from sglang_dflash.tools.bench.prompts import Prompt
from sglang_dflash.tools.serve import Client

TIE = 1e-4  # nats: closer than this, two tokens are one choice to float32
HALF_TIE = 0.25  # and to bfloat16, whose neighbouring logits lie 0.125 apart from 16 on: two roundings


class Difference(NamedTuple):
    """The first token in which an answer leaves the reference."""

    prompt: str  # id
    system: str
    position: int
    expected: int | None  # token id; None past the end
    given: int | None
    gap: float | None  # nats between the two under plain decoding; None where not comparable
    limit: float = TIE  # nats, below which they are a tie

    @property
    def tie(self) -> bool:
        """True where plain decoding itself can hardly tell the two tokens apart."""
        return self.gap is not None and self.gap < self.limit


class Comparison(NamedTuple):
    """Outcome over all answers."""

    answers: int  # 0: they are drawn, and not compared
    differences: list[Difference]
    limit: float = TIE  # nats, below which a difference is a tie

    @property
    def ties(self) -> list[Difference]:
        """Differences that are ties."""
        return [difference for difference in self.differences if difference.tie]

    @property
    def wrong(self) -> list[Difference]:
        """Differences that are not."""
        return [difference for difference in self.differences if not difference.tie]

    @property
    def wrong_systems(self) -> set[str]:
        """Those whose speed is compared with none."""
        return {difference.system for difference in self.wrong}


def first_difference(expected: Sequence[int], given: Sequence[int]) -> int | None:
    """Index of the first token that differs, the end of the shorter one included; None where equal."""
    for position, (one, other) in enumerate(zip(expected, given, strict=False)):
        if one != other:
            return position
    return None if len(expected) == len(given) else min(len(expected), len(given))


def compare(turns: Sequence[Turn], prompts: Sequence[Prompt], judge: Client | None, limit: float = TIE) -> Comparison:
    """Every answer against the first plain answer to its prompt (or the first system's, where plain is absent).

    Args:
        judge: a client of the plain server, asked for log-probabilities at a difference; None: none is a tie.
        limit: nats, below which a difference is a tie.
    """
    first = next((turn for turn in turns if turn.system == "plain"), turns[0])
    found: dict[tuple, Difference] = {}
    for turn in turns:
        for prompt, reference, answer in zip(prompts, first.answers, turn.answers, strict=True):
            position = first_difference(reference.token_ids, answer.token_ids)
            if position is None:
                continue
            key = (prompt.id, turn.system, answer.token_ids[: position + 1])
            if key not in found:
                found[key] = judged(prompt, turn.system, reference.token_ids, answer.token_ids, judge, limit)
    return Comparison(sum(len(turn.answers) for turn in turns), list(found.values()), limit)


def judged(
    prompt: Prompt,
    system: str,
    reference: Sequence[int],
    answer: Sequence[int],
    judge: Client | None,
    limit: float = TIE,
) -> Difference:
    """The first difference of two answers that differ; arguments as of ``compare``."""
    position = first_difference(reference, answer)
    expected, given = _at(reference, position), _at(answer, position)
    gap = _gap(judge, (*prompt.token_ids, *reference[:position]), expected, given)
    return Difference(prompt.id, system, position, expected, given, gap, limit)


def _at(tokens: Sequence[int], position: int) -> int | None:
    return tokens[position] if position < len(tokens) else None


def _gap(judge: Client | None, prefix: Sequence[int], expected: int | None, given: int | None) -> float | None:
    if judge is None or expected is None or given is None:
        return None
    one_token = {"temperature": 0.0, "max_new_tokens": 1}
    asked = judge.generate(prefix, one_token, return_logprob=True, token_ids_logprob=[expected, given])
    log_probs = {row[1]: row[0] for row in asked.meta["output_token_ids_logprobs"][0]}
    return abs(log_probs[expected] - log_probs[given])
