"""What plain sampling would emit, computed with transformers, and a test that samples follow it."""

import math
from collections import Counter

import torch
from filtered_rows import filtered_probs
from scipy.stats import chi2

NO_FILTER = {"temperature": 1.0, "top_k": 1 << 30, "top_p": 1.0, "min_p": 0.0}
MIN_EXPECTED = 5.0  # per bin, the usual condition for the chi-square approximation


def next_token_probs(target, sequences: list[list[int]], params: dict) -> torch.Tensor:
    """[len(sequences), V] fp64: the filtered distribution after each of the equally long sequences."""
    merged = NO_FILTER | {name: params[name] for name in NO_FILTER if name in params}
    with torch.inference_mode():
        logits = target(torch.tensor(sequences), logits_to_keep=1).logits[:, -1].double()
    rows = len(sequences)
    return filtered_probs(
        logits,
        torch.full((rows,), merged["temperature"], dtype=torch.float64),
        torch.full((rows,), merged["top_k"], dtype=torch.int32),
        torch.full((rows,), merged["top_p"], dtype=torch.float64),
        torch.full((rows,), merged["min_p"], dtype=torch.float64),
    )


def continuations(target, prompt, params: dict, length: int, stop_ids, least: float) -> dict[tuple, float]:
    """The continuations of up to ``length`` tokens with a probability of at least ``least``."""
    finished, open_ones = {}, {(): 1.0}
    for _ in range(length):
        if not (prefixes := list(open_ones)):
            break
        probs = next_token_probs(target, [list(prompt) + list(p) for p in prefixes], params)
        longer = {}
        for prefix, row in zip(prefixes, probs, strict=True):
            for token in torch.nonzero(row * open_ones[prefix] >= least).flatten().tolist():
                where = finished if token in stop_ids else longer
                where[(*prefix, token)] = open_ones[prefix] * float(row[token])
        open_ones = longer
    return finished | open_ones


def g_test(samples: list[tuple], distribution: dict[tuple, float]) -> tuple[float, int]:
    """-> (p-value, bins): log-likelihood ratio of the observed counts against the expected ones.

    What ``distribution`` does not spell out is one bin; where too little is left for one, it is dropped.
    """
    total = len(samples)
    expected = {sample: p * total for sample, p in distribution.items()}
    counts = Counter(sample if sample in expected else None for sample in samples)
    rest = total - sum(expected.values())
    if rest >= MIN_EXPECTED:
        expected[None] = rest
    observed = {key: counts.get(key, 0) for key in expected}
    scale = sum(observed.values()) / sum(expected.values())
    statistic = 2 * sum(o * math.log(o / (expected[k] * scale)) for k, o in observed.items() if o)
    return float(chi2.sf(statistic, max(len(expected) - 1, 1))), len(expected)
