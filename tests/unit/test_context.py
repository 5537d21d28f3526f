"""Injection of context features into the draft's cache, through the real layers."""

import pytest
import torch
from rooms import CONFIG, HEAD_DIM, HIDDEN, KV_HEADS, LAYERS, Pool, checkpoint, draft_model, runner

from sglang_dflash.engine.commit.inject import (
    ContextInjector,
    Features,
    LayerwiseProjection,
    PackedProjection,
    all_rows,
    committed_rows,
)
from sglang_dflash.engine.updates.derived import recompute_derived
from sglang_dflash.errors import DFlashError

WIDTH = 4


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "biased"])
def model(request):
    return draft_model(CONFIG | {"attention_bias": request.param})


def injector(model, pool: Pool) -> ContextInjector:
    """Ready for its first call."""
    inject = ContextInjector(model, runner(pool))
    inject.prepare()
    return inject


def windows(commit_lens: list[int], seed: int = 0) -> Features:
    """Windows of WIDTH tokens with random features, slots of their own, and ascending positions."""
    torch.manual_seed(seed)
    bs = len(commit_lens)
    starts = torch.randint(0, 50, (bs, 1))
    return Features(
        hidden=torch.randn(bs * WIDTH, 2 * HIDDEN),
        positions=(starts + torch.arange(WIDTH)).view(-1),
        slots=1 + torch.randperm(39)[: bs * WIDTH],
        commit_lens=torch.tensor(commit_lens, dtype=torch.int32),
    )


def test_committed_rows_are_the_first_of_every_window():
    features = windows([2, 4, 1])
    kept = committed_rows(features)
    rows = [0, 1, 4, 5, 6, 7, 8]
    assert kept.commit_lens is None
    for field in ("hidden", "positions", "slots"):
        assert torch.equal(getattr(kept, field), getattr(features, field)[rows])
    one = windows([3])
    kept = committed_rows(one)
    assert torch.equal(kept.hidden, one.hidden[:3]) and kept.positions.tolist() == one.positions[:3].tolist()
    assert kept.slots.tolist() == one.slots[:3].tolist() and kept.commit_lens is None
    prompt = features._replace(commit_lens=None)
    assert committed_rows(prompt) is prompt and all_rows(features) is features


def keys_by_hand(model, features: Features, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The method in plain steps: fuse, project, norm each head, rotate halves by the position's angle."""
    attention = model.layers[layer].self_attn
    fused = features.hidden @ model.fc.weight.T
    fused = fused / (fused.pow(2).mean(1, keepdim=True) + 1e-6).sqrt() * model.hidden_norm.weight
    kv = fused @ attention.qkv_proj.weight[attention.q_size :].T
    if attention.qkv_proj.bias is not None:
        kv = kv + attention.qkv_proj.bias[attention.q_size :]
    keys, values = kv.view(-1, 2, KV_HEADS, HEAD_DIM).unbind(1)
    keys = keys / (keys.pow(2).mean(2, keepdim=True) + 1e-6).sqrt() * attention.k_norm.weight
    angles = features.positions[:, None] * 1e6 ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    low, high = keys.chunk(2, 2)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), 2), values


@pytest.mark.parametrize("rows", [committed_rows, all_rows])
def test_committed_tokens_and_no_others_are_written(model, rows):
    pool = Pool()
    before = [buffer.clone() for buffer in pool.keys + pool.values]
    inject = injector(model, pool)
    assert inject._rows is committed_rows  # what a host does; an accelerator writes fixed shapes
    inject._rows = rows
    features = windows([3, 1, 4, 2])
    inject(features)
    kept = committed_rows(features)
    # Slot 0 is where SGLang's pools put the writes of padding.
    others = [slot for slot in range(1, 40) if slot not in kept.slots.tolist()]
    for layer in range(LAYERS):
        keys, values = keys_by_hand(model, kept, layer)
        torch.testing.assert_close(pool.keys[layer][kept.slots], keys, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(pool.values[layer][kept.slots], values, atol=2e-5, rtol=1e-4)
        assert torch.equal(pool.keys[layer][others], before[layer][others])
        assert torch.equal(pool.values[layer][others], before[LAYERS + layer][others])


def test_both_ways_of_choosing_rows_leave_the_same_cache(model):
    first, second = Pool(), Pool()
    for buffers in zip(first.keys + first.values, second.keys + second.values, strict=True):
        buffers[1].copy_(buffers[0])
    for pool, rows in ((first, committed_rows), (second, all_rows)):
        inject = injector(model, pool)
        inject._rows = rows
        for seed, lens in enumerate(([1, 4, 2], [4, 4], [1])):
            inject(windows(lens, seed))
    for one, other in zip(first.keys + first.values, second.keys + second.values, strict=True):
        torch.testing.assert_close(one[1:], other[1:], atol=1e-6, rtol=1e-5)


def test_a_prompt_without_new_tokens_writes_nothing(model):
    pool = Pool()
    before = [buffer.clone() for buffer in pool.keys]
    none = torch.empty(0, dtype=torch.int64)
    injector(model, pool)(Features(torch.empty(0, 2 * HIDDEN), none, none, None))
    assert all(torch.equal(a, b) for a, b in zip(pool.keys, before, strict=True))


def test_one_packed_product_equals_layer_by_layer(model):
    fused = torch.randn(7, HIDDEN)
    packed, layerwise = PackedProjection(model)(fused), LayerwiseProjection(model)(fused)
    assert packed.shape == (7, LAYERS * 2 * KV_HEADS * HEAD_DIM)
    torch.testing.assert_close(packed, layerwise, atol=1e-6, rtol=1e-5)


def test_new_weights_are_used_once_they_are_packed():
    model, pool = draft_model(), Pool()
    inject, features = injector(model, pool), windows([4])
    inject(features)
    model.load_weights(checkpoint(seed=1).items())
    recompute_derived(model)
    inject(features)
    fresh = Pool()
    injector(draft_model(seed=1), fresh)(features)
    for layer in range(LAYERS):
        assert torch.equal(pool.keys[layer][features.slots], fresh.keys[layer][features.slots])
        assert torch.equal(pool.values[layer][features.slots], fresh.values[layer][features.slots])


def test_a_pool_in_a_smaller_dtype_is_refused(model):
    pool = Pool()
    pool.store_dtype = torch.uint8
    with pytest.raises(DFlashError, match="speculative-draft-kv-cache-dtype"):
        injector(model, pool)
