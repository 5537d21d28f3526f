"""DFLASH on the server against two batch-1 oracles: same tokens, round for round the same accept lengths."""

import time
from collections import Counter
from itertools import accumulate

import pytest
import torch

from sglang_dflash.reference import Generation, ReferenceDraft, generate, load_target

TIE = 1e-4  # nats: closer than this, two tokens are one choice to float32
MAX_NEW_TOKENS = 160
GREEDY = {"temperature": 0.0, "max_new_tokens": MAX_NEW_TOKENS}
PER_KIND = 3
# The first is also a server of test_exact.py, and may still be running.
CONFIGURATIONS = {
    "overlap-two-ranks-block11": (
        ("--tp-size", 2, "--speculative-num-draft-tokens", 11),
        {"SGLANG_DFLASH_CPU_OVERLAP": "on"},
    ),
    "default": ((), {}),
}


class Oracle:
    """The reference over the served pair; knows when a choice was a tie to float32."""

    def __init__(self, pair):
        torch.set_num_threads(1)
        self.target, self.draft = load_target(pair.target), ReferenceDraft(pair.draft)
        end = self.target.generation_config.eos_token_id
        self.stop_ids = [end] if isinstance(end, int) else list(end)
        self._margins: list[float] = []
        self.target.lm_head.register_forward_hook(self._note_margin)
        self._answers: dict[tuple, tuple[Generation, float]] = {}

    def _note_margin(self, _module, _inputs, logits: torch.Tensor) -> None:
        first, second = logits.topk(2).values.unbind(-1)
        self._margins.append(float((first - second).min()))

    def answer(self, prompt, block_size: int) -> tuple[Generation, float]:
        """-> the reference's answer, and the closest call among all its choices, the draft's included."""
        key = (tuple(prompt), block_size)
        if key not in self._answers:
            self._margins.clear()
            answer = generate(self.target, self.draft, prompt, MAX_NEW_TOKENS, self.stop_ids, block_size)
            self._answers[key] = answer, min(self._margins)
        return self._answers[key]


@pytest.fixture(scope="module")
def oracle(pair):
    return Oracle(pair)


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def served(request, servers, oracle):
    """A server and its block size."""
    flags, env = CONFIGURATIONS[request.param]
    block_size = flags[-1] if flags else oracle.draft.block_size
    return servers.dflash(*flags, **env), block_size


@pytest.fixture(scope="module")
def prompts(pair):
    return [prompt.token_ids for prompt in pair.prompts(per_kind=PER_KIND)]


def rounds_of(answer) -> Counter:
    """Commit length -> number of rounds, as SGLang counted them."""
    return Counter({kept + 1: n for kept, n in enumerate(answer.correct_drafts_histogram) if n})


def same_rounds(answer, wanted: Generation) -> bool:
    return list(answer.token_ids) == wanted.tokens and rounds_of(answer) == Counter(wanted.commit_lens)


def assert_same_rounds(answers, prompts, oracle: Oracle, block_size: int) -> None:
    """Same tokens and rounds for every request, but for ties, which are printed."""
    for prompt, answer in zip(prompts, answers, strict=True):
        wanted, margin = oracle.answer(prompt, block_size)
        if not same_rounds(answer, wanted):
            assert margin < TIE, f"{answer.token_ids} in {rounds_of(answer)} instead of {wanted}"
            print(f"tie: the closest choice was {margin:.1e} nats apart")


def test_one_request_at_a_time(served, oracle, prompts):
    server, block_size = served
    answers = [server.client.generate(prompt, GREEDY, stream=True) for prompt in prompts]
    assert_same_rounds(answers, prompts, oracle, block_size)
    for prompt, answer in zip(prompts, answers, strict=True):
        wanted, _ = oracle.answer(prompt, block_size)
        if same_rounds(answer, wanted):
            # A piece of the stream ends where a round ended; pieces may arrive joined.
            ends = {*accumulate(wanted.commit_lens, initial=1), len(wanted.tokens)}
            assert {arrival.tokens for arrival in answer.arrivals} <= ends


def test_a_batch_goes_through_the_same_rounds(served, oracle, prompts):
    server, block_size = served
    answers = server.client.generate_many(prompts, 16, GREEDY)
    assert_same_rounds(answers, prompts, oracle, block_size)


def test_equals_pypi_dflash(served, oracle, pair, prompts, monkeypatch):
    import dflash.model

    monkeypatch.setattr(dflash.model, "_cuda_time", time.perf_counter)  # it synchronises CUDA
    draft = dflash.model.DFlashDraftModel.from_pretrained(pair.draft, dtype=torch.float32).eval()
    server, block_size = served
    answers = server.client.generate_many(prompts, 4, GREEDY)
    compared = 0
    for prompt, answer in zip(prompts, answers, strict=True):
        theirs = dflash.model.dflash_generate(
            draft,
            oracle.target,
            torch.tensor([prompt]),
            MAX_NEW_TOKENS,
            oracle.stop_ids,
            block_size=block_size,
            return_stats=True,
        )
        tokens = theirs.output_ids[0, len(prompt) :].tolist()
        # dflash reports the last round cut at the stop, and drafts shorter blocks near the limit.
        *whole, cut = theirs.acceptance_lengths or [0]
        last = rounds_of(answer) - Counter(whole)
        equal = list(answer.token_ids) == tokens and answer.rounds == len(theirs.acceptance_lengths)
        if len(tokens) + block_size < MAX_NEW_TOKENS:
            equal = equal and sum(last.values()) == bool(cut) and all(length >= cut for length in last)
            compared += equal
        assert equal or oracle.answer(prompt, block_size)[1] < TIE
    assert compared >= len(prompts) // 2
