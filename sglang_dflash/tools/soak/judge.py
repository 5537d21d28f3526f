"""Plain decoding's answers, and whether another server's tokens are theirs."""

import random
from collections.abc import Sequence
from typing import NamedTuple

from sglang_dflash.tools.serve.client import Client

TIE = 1e-4  # nats: closer than this, two tokens are one choice to float32


class Question(NamedTuple):
    """A prompt with plain decoding's greedy answer; whoever asks for fewer tokens gets its beginning."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    runners_up: tuple[int, ...]  # the second best token at each place
    gaps: tuple[float, ...]  # nats between the two

    def parts_at(self, tokens: Sequence[int]) -> int | None:
        """Where ``tokens`` first differ from the answer; None where they do not."""
        pairs = zip(tokens, self.answer, strict=False)
        return next((at for at, (got, want) in enumerate(pairs) if got != want), None)

    def ties_at(self, at: int, token: int) -> bool:
        """True where ``token`` is as good as the answer's own; what follows then says nothing."""
        return self.gaps[at] < TIE and token == self.runners_up[at]


def greedy(tokens: int) -> dict:
    """Sampling parameters of at most ``tokens`` tokens.

    With ``ignore_eos`` SGLang would believe that each answer needs them all, and hardly ever have to retract one.
    """
    return {"temperature": 0.0, "max_new_tokens": tokens}


def ask_plainly(client: Client, prompts: Sequence[Sequence[int]], longest: int, concurrency: int) -> list[Question]:
    """Every prompt's greedy answer, of at most ``longest`` tokens."""
    answers = client.generate_many(prompts, concurrency, greedy(longest), return_logprob=True, top_logprobs_num=2)
    questions = []
    for prompt, answer in zip(prompts, answers, strict=True):
        pairs = [((best[0], best[1]), (next_[0], next_[1])) for best, next_ in answer.meta["output_top_logprobs"]]
        gaps = tuple(best[0] - second[0] for best, second in pairs)
        questions.append(Question(tuple(prompt), answer.token_ids, tuple(second[1] for _, second in pairs), gaps))
    return questions


def varied(prompts: Sequence[Sequence[int]], count: int, longest: int, seed: int) -> list[tuple[int, ...]]:
    """``count`` prompts of 1 to ``longest`` tokens cut from ``prompts``; half of them share a beginning with others."""
    rng = random.Random(seed)
    stream = [token for prompt in prompts for token in prompt]
    stream *= 1 + longest // len(stream)

    def cut(length: int) -> tuple[int, ...]:
        start = rng.randrange(len(stream) - length + 1)
        return tuple(stream[start : start + length])

    shared = [cut(longest // 2) for _ in range(3)]
    made = [cut(int(longest ** rng.random())) for _ in range(count - count // 2)]
    return made + [rng.choice(shared) + cut(rng.randint(1, longest // 2)) for _ in range(count // 2)]
