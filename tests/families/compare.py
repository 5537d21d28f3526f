"""Token-for-token comparison, in which two tokens closer than float32 can tell apart are one."""

import torch

TIE = 1e-4  # nats


def assert_greedy(logits: torch.Tensor, tokens, what: str, tie: float = TIE) -> None:
    """Every one of ``tokens`` [n] is the largest of its row of ``logits`` [n, vocab], but for ties."""
    chosen = torch.tensor(list(tokens))
    gaps = logits.max(-1).values - logits.gather(1, chosen[:, None])[:, 0]
    worst = int(gaps.argmax())
    wrong, right = int(chosen[worst]), int(logits[worst].argmax())
    assert gaps[worst] < tie, f"{what}: token {worst} is {wrong} instead of {right}, {gaps[worst]:.2e} apart"


def assert_same(oracle, ask, want, got, what: str) -> None:
    """``got`` begins ``want``; where they part, the oracle must call the two tokens a tie."""
    want = tuple(want)[: len(got)]
    assert len(got) == ask.max_new_tokens, f"{what}: {len(got)} tokens instead of {ask.max_new_tokens}"
    at = next((i for i, pair in enumerate(zip(want, got, strict=True)) if pair[0] != pair[1]), None)
    if at is None:
        return
    row = oracle.logits(ask.prompt + want[:at])[-1]
    gap = float((row[want[at]] - row[got[at]]).abs())
    assert gap < TIE, f"{what}: token {at} is {got[at]} instead of {want[at]}, {gap:.2e} nats apart"
