"""The CPU attention backend, every mode, against one query over one key at a time."""

import random
from types import SimpleNamespace

import pytest
import torch
from attention_oracle import Batch, random_tree

from sglang_dflash.cpu.attention import CpuAttention
from sglang_dflash.cpu.host.attention import AttentionType
from sglang_dflash.cpu.host.pool import CpuKVPool
from sglang_dflash.cpu.rows import SplitRows
from sglang_dflash.errors import DFlashError

SHAPES = {
    "groups of 2": (4, 2, 8, 8),
    "one KV head": (3, 1, 8, 8),
    "no groups": (2, 2, 8, 8),
    "short values": (4, 2, 8, 4),
}
MODES = {  # prefix lengths, new lengths
    "decode": ([7, 1, 19], [1, 1, 1]),
    "decode even": ([9, 9], [1, 1]),
    "decode one": ([23], [1]),
    "verify": ([6, 17, 1], [5, 5, 5]),
    "verify one": ([11], [5]),
    "extend": ([0, 8, 3], [4, 3, 4]),
    "extend even": ([2, 2], [4, 4]),
    "extend one": ([5], [9]),
    "extend mixed": ([0, 12, 4, 30, 2], [17, 1, 2, 1, 9]),
}


def make(shape, window=-1, cap=0.0, encoder_only=False, dtype=torch.float32):
    heads, kv_heads, dim, v_dim = shape
    pool = CpuKVPool(600, 1, dtype, kv_heads, dim, 3, "cpu", False, v_head_dim=v_dim)
    generator = torch.Generator().manual_seed(1)
    for rows in pool.rows:
        rows.normal_(generator=generator)
    layer = SimpleNamespace(
        layer_id=1,
        tp_q_head_num=heads,
        tp_k_head_num=kv_heads,
        tp_v_head_num=kv_heads,
        qk_head_dim=dim,
        v_head_dim=v_dim,
        scaling=dim**-0.5,
        sliding_window_size=window,
        logit_cap=cap,
        attn_type=AttentionType.ENCODER_ONLY if encoder_only else AttentionType.DECODER,
        is_cross_attention=False,
        k_scale=None,
        v_scale=None,
    )
    return pool, layer


def backend_for(pool, batch):
    runner = SimpleNamespace(
        token_to_kv_pool=pool,
        req_to_token_pool=SimpleNamespace(req_to_token=batch.table),
    )
    return CpuAttention(runner)


def spec(width, custom_mask=None, **more):
    return SimpleNamespace(draft_token_num=width, custom_mask=custom_mask, **more)


def run(pool, batch, mode, spec_info=None, sinks=None, depths=None):
    backend = backend_for(pool, batch)
    forward_batch = batch.forward_batch(mode, spec_info, depths)
    backend.init_forward_metadata(forward_batch)
    more = {} if sinks is None else {"sinks": sinks}
    return backend.forward(batch.q, batch.k, batch.v, batch.layer, forward_batch, **more)


def close(got, expected):
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [-1, 3, 1000])
@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_causal(name, shape, window):
    pool, layer = make(shape, window)
    batch = Batch(pool, layer, *MODES[name], seed=3)
    mode = name.split()[0]
    got = run(pool, batch, mode, spec(5))
    close(got, batch.expected(True, window, 0.0, None))


@pytest.mark.parametrize("name", [name for name in MODES if name.startswith("verify")])
@pytest.mark.parametrize("window", [-1, 4])
def test_a_bidirectional_block_sees_all_of_itself_and_its_context(name, window):
    pool, layer = make(SHAPES["groups of 2"], window, encoder_only=True)
    batch = Batch(pool, layer, *MODES[name], seed=4)
    close(run(pool, batch, "verify", spec(5)), batch.expected(False, window, 0.0, None))


@pytest.mark.parametrize("window", [-1, 2])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_trees(window, seed):
    pool, layer = make(SHAPES["groups of 2"], window)
    rng, nodes, prefix_lens = random.Random(seed), 9, [6, 17, 1]
    batch = Batch(pool, layer, prefix_lens, [nodes] * 3, seed)
    _, depths, first = random_tree(nodes, rng)
    # Alike, so that one list of positions serves all; below, each request has its own.
    trees = [first, first, first]
    got = run(pool, batch, "verify", spec(nodes, visibility=torch.tensor(trees)), depths=depths)
    close(got, batch.expected(True, window, 0.0, None, trees, depths))


def test_each_request_has_its_own_tree():
    pool, layer = make(SHAPES["one KV head"])
    rng, nodes = random.Random(5), 7
    batch = Batch(pool, layer, [4, 12, 9], [nodes] * 3, 5)
    trees = [random_tree(nodes, rng)[2] for _ in range(3)]
    got = run(pool, batch, "verify", spec(nodes, visibility=torch.tensor(trees)))
    close(got, batch.expected(True, -1, 0.0, None, trees))


@pytest.mark.parametrize("cap, with_sinks", [(4.0, False), (0.0, True), (4.0, True)])
@pytest.mark.parametrize("name", ["decode", "verify", "extend", "extend mixed"])
def test_soft_caps_and_sinks(name, cap, with_sinks):
    pool, layer = make(SHAPES["groups of 2"], window=6, cap=cap)
    batch = Batch(pool, layer, *MODES[name], seed=6)
    sinks = batch.sinks if with_sinks else None
    got = run(pool, batch, name.split()[0], spec(5), sinks)
    close(got, batch.expected(True, 6, cap, sinks))


def test_layers_share_masks_of_one_kind_only():
    pool, layer = make(SHAPES["groups of 2"], window=3)
    batch = Batch(pool, layer, *MODES["verify"], seed=7)
    backend = backend_for(pool, batch)
    forward_batch = batch.forward_batch("verify", spec(5))
    backend.init_forward_metadata(forward_batch)
    for causal, window in [(True, 3), (False, 3), (True, -1), (False, -1), (True, 3)]:
        layer.sliding_window_size = window
        layer.attn_type = AttentionType.DECODER if causal else AttentionType.ENCODER_ONLY
        got = backend.forward(batch.q, batch.k, batch.v, layer, forward_batch)
        close(got, batch.expected(causal, window, 0.0, None))


def test_consecutive_slots_are_read_in_place():
    pool, layer = make(SHAPES["groups of 2"])
    batch = Batch(pool, layer, [20], [1], seed=8)
    batch.table[batch.rows[0]] = torch.arange(100, 100 + batch.table.shape[1])
    backend = backend_for(pool, batch)
    forward_batch = batch.forward_batch("decode")
    backend.init_forward_metadata(forward_batch)
    assert backend._spans[0].slots.run == slice(100, 121)
    got = backend.forward(batch.q, batch.k, batch.v, layer, forward_batch)
    close(got, batch.expected(True, -1, 0.0, None))


@pytest.mark.parametrize("joint", [True, False])
def test_rows_in_one_piece_equal_keys_and_values_apart(joint):
    pool, layer = make(SHAPES["short values"])
    batch = Batch(pool, layer, *MODES["extend mixed"], seed=9)
    expected = run(pool, batch, "extend")
    stored = [rows.clone() for rows in pool.rows]
    backend = backend_for(pool, batch)
    if not joint:
        backend._kv = SplitRows(pool)
    forward_batch = batch.forward_batch("extend")
    backend.init_forward_metadata(forward_batch)
    for rows in pool.rows:
        rows[forward_batch.out_cache_loc] = float("nan")
    rows = torch.cat((batch.k.flatten(1), batch.v.flatten(1)), 1)
    q = batch.q.view(-1, layer.tp_q_head_num, layer.qk_head_dim)
    torch.testing.assert_close(backend.attend_rows(q, rows, layer, forward_batch), expected)
    torch.testing.assert_close(pool.rows[1], stored[1])


def test_nothing_is_stored_when_asked_not_to():
    pool, layer = make(SHAPES["groups of 2"])
    batch = Batch(pool, layer, *MODES["verify"], seed=10)
    before = pool.rows[1].clone()
    backend = backend_for(pool, batch)
    forward_batch = batch.forward_batch("verify", spec(5))
    backend.init_forward_metadata(forward_batch)
    got = backend.forward(batch.q, batch.k, batch.v, layer, forward_batch, save_kv_cache=False)
    assert torch.equal(pool.rows[1], before)
    close(got, batch.expected(True, -1, 0.0, None))


def test_stale_columns_past_a_short_request_do_no_harm():
    pool, layer = make(SHAPES["groups of 2"])
    batch = Batch(pool, layer, [30, 2], [1, 1], seed=11)
    row = batch.rows[1]
    pool.rows[1][batch.table[row, 4:].long()] = 1e30
    got = run(pool, batch, "decode")
    close(got, batch.expected(True, -1, 0.0, None))


def test_a_bfloat16_pool_serves_float32_queries():
    pool, layer = make(SHAPES["groups of 2"], dtype=torch.bfloat16)
    batch = Batch(pool, layer, *MODES["decode"], seed=12)
    got = run(pool, batch, "decode")
    assert got.dtype == torch.float32
    close(got, batch.expected(True, -1, 0.0, None))


def test_what_it_cannot_do_is_refused():
    pool, layer = make(SHAPES["groups of 2"])
    batch = Batch(pool, layer, *MODES["decode"], seed=13)
    backend = backend_for(pool, batch)
    forward_batch = batch.forward_batch("decode")
    backend.init_forward_metadata(forward_batch)
    with pytest.raises(DFlashError, match="flat mask"):
        run(pool, batch, "verify", spec(1, custom_mask=torch.ones(9, dtype=torch.bool)))
    with pytest.raises(DFlashError, match="q_rope"):
        backend.forward(batch.q, batch.k, batch.v, layer, forward_batch, q_rope=batch.q)


@pytest.mark.parametrize("window", [-1, 3])
@pytest.mark.parametrize("name", ["extend", "extend even", "extend one", "extend mixed"])
def test_tokens_of_one_image_see_each_other(name, window):
    pool, layer = make(SHAPES["groups of 2"], window)
    prefix_lens, new_lens = MODES[name]
    batch = Batch(pool, layer, prefix_lens, new_lens, seed=14)
    backend = backend_for(pool, batch)
    forward_batch = batch.forward_batch("extend")
    backend.init_forward_metadata(forward_batch)
    # An image in the middle of every request's new tokens: all but their first and last.
    ranges = [
        (start + 1, start + new - 2) if 0 < i < new - 1 else (-1, -1)
        for start, new in zip(prefix_lens, new_lens, strict=True)
        for i in range(new)
    ]
    backend.forward_metadata.image_token_ranges = torch.tensor(ranges, dtype=torch.int32)
    got = backend.forward(batch.q, batch.k, batch.v, layer, forward_batch)
    close(got, batch.expected(True, window, 0.0, None, images=ranges))
    backend.init_forward_metadata(forward_batch)
    got = backend.forward(batch.q, batch.k, batch.v, layer, forward_batch)
    close(got, batch.expected(True, window, 0.0, None))
