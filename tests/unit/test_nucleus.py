"""What top-k, top-p and min-p keep, and what a seed draws of it: a full sort's."""

import pytest
import torch
from sglang.srt.layers import sampler

from sglang_dflash.cpu.host.sampler import draw_from_kept
from sglang_dflash.cpu.nucleus import kept_tokens
from sglang_dflash.kernels.seeded_hash import murmur_hash32

VOCAB = 3000


def full_sort(probs, top_ks, top_ps, min_ps=None):
    """SGLang's filter, over the whole vocabulary, with equal probabilities in the order of their ids."""
    values, ids = probs.sort(dim=-1, stable=True, descending=True)
    sums = values.cumsum(-1)
    values[torch.arange(values.shape[1]) >= top_ks.view(-1, 1)] = 0.0
    values[(sums - values) > top_ps.view(-1, 1)] = 0.0
    if min_ps is not None:
        values[values < (values[:, 0] * min_ps).view(-1, 1)] = 0.0
    return values, ids


def distributions(seed: int) -> torch.Tensor:
    """Rows from nearly certain to flat, some of them with many ties, one with zeros."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.tensor([30.0, 8.0, 4.0, 2.0, 1.0, 0.0, 3.0, 3.0]).unsqueeze(1)
    logits = torch.randn(8, VOCAB, generator=generator) * scales
    logits[6] = logits[6].round()
    logits[7, ::3] = -torch.inf
    return logits.softmax(-1)


def assert_same_kept(probs, top_ks, top_ps, min_ps=None):
    expected, expected_ids = full_sort(probs, top_ks, top_ps, min_ps)
    kept, ids = kept_tokens(probs, top_ks, top_ps, min_ps)
    width = kept.shape[1]
    assert torch.equal(kept, expected[:, :width]) and not expected[:, width:].any()
    assert torch.equal(ids[kept > 0], expected_ids[:, :width][kept > 0])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.95, 0.999, 1.0])
@pytest.mark.parametrize("top_k", [1, 20, VOCAB])
@pytest.mark.parametrize("min_p", [None, 0.02])
def test_kept_tokens_are_the_full_sorts(seed, top_p, top_k, min_p):
    probs = distributions(seed)
    ks, ps = torch.full((8,), top_k), torch.full((8,), top_p)
    assert_same_kept(probs, ks, ps, None if min_p is None else torch.full((8,), min_p))


def test_rows_with_filters_of_their_own():
    probs = distributions(5)
    ks = torch.tensor([VOCAB, 1, 7, VOCAB, 50, VOCAB, VOCAB, 3])
    ps = torch.tensor([1.0, 0.9, 1.0, 0.3, 0.95, 0.99, 0.6, 0.0])
    assert_same_kept(probs, ks, ps)


def test_a_sharp_batch_is_narrow():
    probs = distributions(0)[:2]
    kept, _ = kept_tokens(probs, torch.full((2,), VOCAB), torch.full((2,), 0.95))
    assert kept.shape[1] < VOCAB // 4


def test_few_tokens_above_a_sea_of_equal_ones():
    # The nucleus ends among ties: those of the lowest ids are kept.
    probs = torch.full((1, VOCAB), 0.5 / (VOCAB - 1))
    probs[0, 77] = 0.5
    assert_same_kept(probs, torch.tensor([VOCAB]), torch.tensor([0.7]))
    kept, ids = kept_tokens(probs, torch.tensor([VOCAB]), torch.tensor([0.7]))
    assert ids[0, :4].tolist() == [77, 0, 1, 2]


@pytest.fixture
def samplers(monkeypatch):
    """SGLang's draw, and ours in its place."""
    monkeypatch.setattr(sampler, "murmur_hash32", murmur_hash32)
    original = sampler.top_k_top_p_min_p_sampling_from_probs_torch
    monkeypatch.setattr(sampler, "top_k_top_p_min_p_sampling_from_probs_torch", original)
    draw_from_kept(kept_tokens)
    return original, sampler.top_k_top_p_min_p_sampling_from_probs_torch


def test_a_seed_draws_the_same_token(samplers):
    probs = distributions(1)[:5].repeat_interleave(40, 0)  # rows without ties: SGLang's order is then defined
    n = probs.shape[0]
    filters = torch.full((n,), VOCAB), torch.full((n,), 0.9), torch.zeros(n)
    seeds, positions = torch.arange(n) + 11, torch.arange(n) % 7
    original, ours = (draw(probs.clone(), *filters, False, seeds, positions) for draw in samplers)
    assert torch.equal(original, ours) and ours.dtype == original.dtype


def test_a_seeds_token_does_not_depend_on_the_batch(samplers):
    probs = distributions(2)
    filters = torch.full((8,), VOCAB), torch.full((8,), 0.95), torch.zeros(8)
    seeds, positions = torch.arange(8), torch.arange(8)
    together = samplers[1](probs, *filters, False, seeds, positions)
    for i in range(8):
        row = slice(i, i + 1)
        alone = samplers[1](probs[row], *(f[row] for f in filters), False, seeds[row], positions[row])
        assert alone.item() == together[i].item()


def test_unseeded_draws_have_the_filtered_distribution(samplers):
    draws = 20000
    probs = distributions(3)[2:3]
    top_k, top_p, min_p = torch.tensor([40]), torch.tensor([0.8]), torch.tensor([0.05])
    expected, ids = full_sort(probs.clone(), top_k, top_p, min_p)
    torch.manual_seed(0)
    rows = probs.expand(draws, -1)
    filters = top_k.expand(draws), top_p.expand(draws), min_p.expand(draws)
    drawn = samplers[1](rows, *filters, True, None, None)
    share = torch.bincount(drawn, minlength=VOCAB)[ids[0]] / draws
    weights = expected[0] / expected[0].sum()
    assert not share[weights == 0].any()
    assert float((share - weights).abs().sum()) / 2 < 0.03


def test_what_hands_the_sorted_row_on_is_sglangs(samplers):
    probs = distributions(4)[:2]
    filters = torch.full((2,), VOCAB), torch.full((2,), 0.9), torch.zeros(2)
    _, weights, ids, _ = samplers[1](probs, *filters, False, None, None, return_filtered_probs=True)
    assert weights.shape == ids.shape == (2, VOCAB)
