"""What moves whole recurrent states, the norms around a recurrent layer, and the size of the state pool."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from sglang_dflash.cpu.recurrent import projections, states
from sglang_dflash.cpu.recurrent.arguments import default_states

LAYERS, SLOTS, REQUESTS, WIDTH = 2, 9, 4, 5


def caches() -> SimpleNamespace:
    torch.manual_seed(0)
    return SimpleNamespace(
        conv=[torch.randn(LAYERS, SLOTS, 6, 3)],
        temporal=torch.randn(LAYERS, SLOTS, 2, 8, 4),
        intermediate_conv_window=[torch.randn(LAYERS, REQUESTS, WIDTH, 6, 3)],
        intermediate_ssm=torch.randn(LAYERS, REQUESTS, WIDTH, 2, 8, 4),
    )


@pytest.mark.parametrize("rows", (None, torch.tensor([2, 0, 3, 1])))
@pytest.mark.parametrize("snapshots", (False, True))
def test_commit(rows, snapshots):
    pool = caches()
    wanted = caches()
    slots, nodes = torch.tensor([3, 7, -1, 2], dtype=torch.int32), torch.tensor([4, 0, 2, -1])
    kept = (torch.tensor([5, 6, -1, 8]), torch.tensor([1, -1, 3, 4])) if snapshots else (None, None)
    states.scatter_after_verify(pool, slots, nodes, *kept, src_indices_raw=rows)
    moves = [(slots, nodes), kept] if snapshots else [(slots, nodes)]
    for request in range(REQUESTS):
        row = request if rows is None else int(rows[request])
        for to, node in ((int(a[request]), int(b[request])) for a, b in moves):
            if to >= 0 and node >= 0:
                wanted.temporal[:, to] = wanted.intermediate_ssm[:, row, node]
                wanted.conv[0][:, to] = wanted.intermediate_conv_window[0][:, row, node]
    assert torch.equal(pool.temporal, wanted.temporal) and torch.equal(pool.conv[0], wanted.conv[0])


def test_snapshots_of_decode():
    pool, wanted = caches(), caches()
    slots, asked = torch.tensor([3, 7, 1], dtype=torch.int32), torch.tensor([True, False, True])
    states.track_all_layers(pool.conv[0], pool.temporal, slots, asked, torch.tensor([5, 6, -1]), 3)
    wanted.temporal[:, 5], wanted.conv[0][:, 5] = wanted.temporal[:, 3], wanted.conv[0][:, 3]
    assert torch.equal(pool.temporal, wanted.temporal) and torch.equal(pool.conv[0], wanted.conv[0])


@pytest.mark.parametrize("group_size", (None, 8))
@pytest.mark.parametrize("norm_before_gate", (False, True))
@pytest.mark.parametrize("gated", (False, True))
def test_grouped_gated_norm(group_size, norm_before_gate, gated):
    torch.manual_seed(0)
    x, gate, weight = torch.randn(3, 24), torch.randn(3, 24), torch.randn(24)
    norm = SimpleNamespace(
        group_size=group_size,
        norm_before_gate=norm_before_gate,
        activation="swish",
        eps=1e-5,
        weight=weight,
    )
    wanted = torch.empty_like(x)
    for row in range(3):
        for start in range(0, 24, group_size or 24):
            part = slice(start, start + (group_size or 24))
            value, factor = x[row, part], F.silu(gate[row, part]) if gated else 1.0
            value = value if norm_before_gate else value * factor
            value = value / (value.square().mean() + norm.eps).sqrt() * weight[part]
            wanted[row, part] = value * factor if norm_before_gate else value
    got = projections.grouped_rms_norm_gated(norm, x, gate if gated else None)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_states_fit_the_memory():
    megabyte = 1 << 20
    assert default_states(megabyte, 48, 0, False, 1 << 40) == 48
    assert default_states(megabyte, 48, 16, True, 1 << 40) == 48 * 8
    # A quarter of the memory holds states and, for every third of them, a request's nodes.
    assert default_states(megabyte, 48, 0, True, 400 * megabyte) == 100
    assert default_states(megabyte, 48, 16, False, 680 * megabyte) == 10
    assert default_states(megabyte, 48, 15, True, 480 * megabyte) == 20
    assert default_states(megabyte, 48, 16, True, megabyte) == 3


@pytest.mark.parametrize("window_per_node", (True, False))
@pytest.mark.parametrize("width", (4, 16))
def test_memory_of_a_request(monkeypatch, window_per_node, width):
    """docs/hybrid.md: what one more request takes in SGLang's pool."""
    from sglang.srt.configs.mamba_utils import Mamba2CacheParams, Mamba2StateDType, Mamba2StateShape
    from sglang.srt.mem_cache import memory_pool

    if window_per_node:
        monkeypatch.setattr(memory_pool, "conv_window_dedup_enabled", lambda *unused: False)
    layers, heads, value_heads, key, value, taps = 3, 2, 4, 16, 8, 4
    shape = Mamba2StateShape.create(
        tp_world_size=1,
        intermediate_size=value_heads * value,
        n_groups=heads,
        num_heads=value_heads,
        head_dim=value,
        state_size=key,
        conv_kernel=taps,
    )
    dtype = Mamba2StateDType(conv=torch.float32, temporal=torch.float32)
    sizes = []
    for requests in (1, 2):
        pool = memory_pool.MambaPool(
            size=requests,
            spec_state_size=requests,
            cache_params=Mamba2CacheParams(shape=shape, layers=list(range(layers)), dtype=dtype),
            mamba_layer_ids=list(range(layers)),
            device="cpu",
            speculative_num_draft_tokens=width,
        )
        states = pool.mamba_cache
        own = (*states.conv, states.temporal)
        nodes = (*states.intermediate_conv_window, states.intermediate_ssm)
        sizes.append([sum(t.untyped_storage().nbytes() for t in part) for part in (own, nodes)])
    own, nodes = (more - less for more, less in zip(sizes[1], sizes[0], strict=True))
    channels, matrix = 2 * heads * key + value_heads * value, value_heads * value * key
    columns = width * (taps - 1) if window_per_node else width + taps - 2
    assert own == layers * 4 * (channels * (taps - 1) + matrix)
    assert nodes == layers * 4 * (channels * columns + width * matrix)
