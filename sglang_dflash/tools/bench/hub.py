"""The transformers library's own ``generate``, in this process: a reference that shares no code with a server."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from sglang_dflash.tools.serve import Generation


class HubModel:
    """A float32 causal LM of transformers on the CPU; greedy."""

    def __init__(self, target: str):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._torch = torch
        self._model = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32).eval()
        eos = self._model.generation_config.eos_token_id
        end = AutoTokenizer.from_pretrained(target).eos_token_id
        # A server ends an answer at the model's end tokens and at the tokenizer's.
        self._ends = sorted({*(eos if isinstance(eos, list) else [eos]), end} - {None})

    def generate(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[tuple[int, ...]]:
        """Answers to ``prompts`` as one batch, padded on the left; an end token that was written is part of one."""
        torch, longest = self._torch, max(map(len, prompts))
        pad = self._ends[0] if self._ends else 0
        ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode():
            out = self._model.generate(
                ids,
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=max_tokens,
                eos_token_id=self._ends or None,
                pad_token_id=pad,
            )
        return [self._until_end(row) for row in out[:, longest:].tolist()]

    def _until_end(self, tokens: list[int]) -> tuple[int, ...]:
        end = next((i + 1 for i, token in enumerate(tokens) if token in self._ends), len(tokens))
        return tuple(tokens[:end])


class HubSystem:
    """``HubModel`` with the parts of a server that a measurement uses; it is its own client.

    Requests in flight are one batch, which ends with its longest answer: the library has no other way. Threads are
    torch's choice, or OMP_NUM_THREADS.
    """

    streams = False

    def __init__(self, target: str):
        self._model = HubModel(target)

    @property
    def client(self) -> HubSystem:
        """Itself."""
        return self

    def flush_cache(self) -> None:
        """Nothing is kept between two batches."""

    def generate_many(self, prompts: Sequence[Sequence[int]], concurrency: int, sampling, stream) -> list[Generation]:
        """Greedy answers, ``concurrency`` prompts a batch."""
        answers = []
        for start in range(0, len(prompts), concurrency):
            sent = time.perf_counter()
            found = self._model.generate(prompts[start : start + concurrency], sampling["max_new_tokens"])
            finished = time.perf_counter()
            answers += [Generation(tokens, "", {}, sent, finished) for tokens in found]
        return answers

    def watched(self, work: Callable[[], Any]) -> Any:
        """The result of ``work``."""
        return work()

    def cpu_seconds(self, only_schedulers: bool) -> float:
        """Processor seconds that this process has used."""
        return time.process_time()
