"""Filters and draws of the tests' own sampler against plain Python."""

import math
import random

import pytest
import torch
from filtered_rows import filtered_probs, sample_rows

FILTERS = (
    (1.0, 1 << 30, 1.0, 0.0),
    (0.3, 1 << 30, 1.0, 0.0),
    (1.7, 5, 1.0, 0.0),
    (1.0, 1, 1.0, 0.0),
    (1.0, 1 << 30, 0.6, 0.0),
    (1.0, 1 << 30, 1e-9, 0.0),
    (1.0, 1 << 30, 1.0, 0.2),
    (0.8, 7, 0.9, 0.05),
)


def filter_rows(filters, dtype=torch.float64):
    """Columns of ``filters`` as the four arguments of ``filtered_probs``."""
    temperature, top_k, top_p, min_p = zip(*filters, strict=True)
    return (
        torch.tensor(temperature, dtype=dtype),
        torch.tensor(top_k, dtype=torch.int32),
        torch.tensor(top_p, dtype=dtype),
        torch.tensor(min_p, dtype=dtype),
    )


@pytest.mark.parametrize("vocab", (1, 3, 111))
def test_filtered_probs(vocab):
    torch.manual_seed(vocab)
    logits = (torch.randn(len(FILTERS), vocab, dtype=torch.float64) * 2).round(decimals=1)  # ties occur
    got = filtered_probs(logits, *filter_rows(FILTERS))
    for row, filters in enumerate(FILTERS):
        wanted = probs_in_python(logits[row].tolist(), *filters)
        assert max(abs(a - b) for a, b in zip(got[row].tolist(), wanted, strict=True)) < 1e-12


def test_sample_rows_is_the_inverse_cdf():
    rng = random.Random(5)
    for trial in range(200):
        filters = rng.choice(FILTERS)
        logits = torch.tensor([[rng.gauss(0, 2) for _ in range(11)]], dtype=torch.float64)
        uniform = rng.choice((0.0, rng.random(), 1 - 2**-53))
        probs = filtered_probs(logits, *filter_rows([filters]))
        got = sample_rows(logits, *filter_rows([filters]), torch.tensor([uniform], dtype=torch.float64))
        wanted = inverse_cdf(probs[0].tolist(), uniform)
        assert probs[0, got[0]] > 0, trial
        assert int(got[0]) == wanted, trial


def probs_in_python(logits, temperature, top_k, top_p, min_p):
    """One row of floats -> probabilities in vocabulary order."""
    scaled = [x / temperature for x in logits]
    peak = max(scaled)
    weights = [math.exp(x - peak) for x in scaled]
    total = math.fsum(weights)
    probs = [w / total for w in weights]
    order = sorted(range(len(probs)), key=lambda token: (-probs[token], token))
    kept, mass = {}, 0.0
    for rank, token in enumerate(order):
        if rank < top_k and mass <= top_p and probs[token] >= min_p * probs[order[0]]:
            kept[token] = probs[token]
        mass += probs[token]
    total = math.fsum(kept.values())
    return [kept.get(token, 0.0) / total for token in range(len(probs))]


def inverse_cdf(probs, uniform):
    """The token that ``uniform`` selects when tokens are laid out from most to least probable."""
    order = sorted(range(len(probs)), key=lambda token: (-probs[token], token))
    mass = 0.0
    for token in order:
        mass += probs[token]
        if uniform < mass:
            return token
    return [token for token in order if probs[token] > 0][-1]
