"""Rows of latent and hybrid pools: attention reads what was written, and a tree's commit moves each buffer once."""

from types import SimpleNamespace

import torch
from attention_oracle import Batch
from test_attention_backend import MODES, SHAPES, make, run, spec

from sglang_dflash.cpu.host.attention import MLATokenToKVPool, SWAKVPool
from sglang_dflash.cpu.host.pool import CpuKVPool
from sglang_dflash.cpu.rows import LatentRows
from sglang_dflash.cpu.spans import uniform_span
from sglang_dflash.engine.commit.paths import TreeCommit
from sglang_dflash.host.kv_pools import kv_groups

SLOTS, SLIDING, FULL = 601, 1, 0


def hybrid_pool(seed: int = 1):
    """A pool of one full and one sliding layer, whose sliding rows are the full ones' in another order."""
    pool = SWAKVPool(
        SLOTS - 1,
        SLOTS - 1,
        1,
        torch.float32,
        2,
        8,
        [SLIDING],
        [FULL],
        "cpu",
        token_to_kv_pool_class=CpuKVPool,
        enable_kv_cache_copy=True,
    )
    generator = torch.Generator().manual_seed(seed)
    pool.register_mapping(torch.randperm(SLOTS, generator=generator))
    return pool


def test_sliding_layers_read_and_write_their_own_pool():
    for mode_name in ("extend mixed", "decode", "verify", "verify one"):
        joint, layer = make(SHAPES["groups of 2"], window=6)
        batch = Batch(joint, layer, *MODES[mode_name], seed=3)
        pool = hybrid_pool()
        where = pool.full_to_swa_index_mapping
        pool.swa_kv_pool.rows[0][where] = joint.rows[layer.layer_id]
        expected = run(joint, batch, mode_name.split()[0], spec(5))
        got = run(pool, batch, mode_name.split()[0], spec(5))
        torch.testing.assert_close(got, expected)
        assert not pool.full_kv_pool.rows[0].any()
        batch.layer.layer_id = FULL
        run(pool, batch, mode_name.split()[0], spec(5))
        assert pool.full_kv_pool.rows[0].any()


def latent_pool():
    pool = MLATokenToKVPool(SLOTS, 1, torch.float32, 24, 8, 2, "cpu", False)
    for rows in pool.kv_buffer:
        rows.normal_(generator=torch.Generator().manual_seed(2))
    return pool


def test_latent_rows_are_keys_and_their_head_is_the_value():
    pool, layer = latent_pool(), SimpleNamespace(layer_id=1, v_head_dim=24)
    rows = LatentRows(pool)
    slots = torch.tensor([7, 3, 11])
    row = torch.randn(3, 1, 32)
    rows.write(layer, slots, row, row[..., :24])
    table = torch.tensor([[9, 9, 9], [7, 3, 11]], dtype=torch.int32)
    span = uniform_span(table, torch.tensor([1]), torch.tensor([3]), 1)
    keys, values = rows.read(layer, span)
    assert torch.equal(keys, row[:, 0]) and torch.equal(values, row[:, 0, :24])


def commit(pool, path, commit_lens, slots):
    """The tree's commit over random features."""
    width = slots.shape[1]
    proposal = SimpleNamespace(positions=torch.zeros(slots.shape, dtype=torch.int64))
    accepted = SimpleNamespace(path=path, commit_lens=commit_lens)
    runner = SimpleNamespace(device="cpu", token_to_kv_pool=pool)
    TreeCommit(runner)(None, proposal, accepted, slots, torch.zeros(slots.shape[0] * width, 4))


def test_a_tree_commit_moves_every_kind_of_row_once():
    # 0 -> 2 -> 3: the row of node 3 goes where node 2's was, after that one has moved.
    path = torch.tensor([[0, 2, 3, -1], [0, 1, 3, -1]])
    lens, slots = torch.tensor([3, 3], dtype=torch.int32), torch.tensor([[5, 9, 2, 7], [30, 21, 40, 33]])
    taken = torch.tensor([5, 2, 7, 30, 21, 33])
    placed = torch.tensor([5, 9, 2, 30, 21, 40])
    for pool in (latent_pool(), hybrid_pool()):
        groups = kv_groups(pool)
        for group in groups:
            for buffer in group.buffers:
                buffer.normal_()
        before = [[buffer.clone() for buffer in group.buffers] for group in groups]
        commit(pool, path, lens, slots)
        for group, olds in zip(groups, before, strict=True):
            for buffer, old in zip(group.buffers, olds, strict=True):
                assert torch.equal(buffer[group.slots(placed)], old[group.slots(taken)])
