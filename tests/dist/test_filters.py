"""The filters mean what SGLang's own sampler means by them, and draws follow the filtered distribution."""

import pytest
import torch
from scipy.stats import chi2
from sglang.srt.layers.sampler import top_k_top_p_min_p_sampling_from_probs_torch
from toy import rows_of

from filtered_rows import filtered_probs, sample_rows

FILTERS = (
    (1.0, 1 << 30, 1.0, 0.0),
    (0.5, 1 << 30, 1.0, 0.0),
    (1.4, 4, 1.0, 0.0),
    (1.0, 1 << 30, 0.8, 0.0),
    (1.0, 1 << 30, 1.0, 0.15),
    (0.9, 6, 0.9, 0.05),
)
# Draws per case. A chi-square statistic above its 1 - 1e-6 quantile fails: with the fixed seeds the
# outcome is always the same, and a deviation of 0.01 in a probability of 0.3 would exceed it.
DRAWS = 200_000
TAIL = 1e-6


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("vocab", (5, 111))
def test_same_weights_as_the_host_sampler(filters, vocab):
    torch.manual_seed(vocab)
    logits = torch.randn(64, vocab, dtype=torch.float64) * 2
    temperature, top_k, top_p, min_p = rows_of(filters, 64)
    probs = (logits / filters[0]).softmax(1)
    _, weights, token_ids, _ = top_k_top_p_min_p_sampling_from_probs_torch(
        probs, top_k, top_p, min_p, filters[3] > 0, None, None, return_filtered_probs=True
    )
    host = torch.zeros_like(probs).scatter_(1, token_ids.long(), weights)
    ours = filtered_probs(logits, temperature, top_k, top_p, min_p)
    torch.testing.assert_close(ours, host / host.sum(1, keepdim=True), rtol=0, atol=1e-15)


@pytest.mark.parametrize("filters", FILTERS)
def test_draws_follow_the_distribution(filters):
    generator = torch.Generator().manual_seed(17)
    logits = (torch.randn(1, 9, generator=generator) * 1.2).expand(DRAWS, 9)
    uniforms = torch.rand(DRAWS, generator=generator)
    drawn = sample_rows(logits, *rows_of(filters, DRAWS), uniforms)
    expected = filtered_probs(logits[:1].double(), *rows_of(filters, 1))[0] * DRAWS
    counts = torch.bincount(drawn, minlength=9).double()
    possible = expected > 0
    assert counts[~possible].sum() == 0
    statistic = ((counts - expected)[possible] ** 2 / expected[possible]).sum().item()
    assert statistic < chi2.isf(TAIL, max(int(possible.sum()) - 1, 1))


def test_equal_uniforms_give_equal_tokens():
    logits = torch.randn(50, 30)
    uniforms = torch.rand(50)
    arguments = rows_of((0.8, 10, 0.9, 0.0), 50)
    first = sample_rows(logits, *arguments, uniforms)
    order = torch.randperm(50)
    again = sample_rows(logits[order], *(a[order] for a in arguments), uniforms[order])
    assert torch.equal(again, first[order])
