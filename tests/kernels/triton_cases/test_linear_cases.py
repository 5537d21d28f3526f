"""Torch twins of the linear-attention operators against the Triton kernels that SGLang serves with on GPUs."""

import os
from types import SimpleNamespace

import pytest
import torch
from linear_oracles import chain, conv_case, delta_case, trees
from sglang.kernels.ops.attention.fla.chunk import chunk_gated_delta_rule
from sglang.kernels.ops.attention.fla.fused_norm_gate import FusedRMSNormGated
from sglang.kernels.ops.attention.fla.layernorm_gated import RMSNorm
from sglang.kernels.ops.attention.linear.fused_sigmoid_gating_recurrent import (
    fused_sigmoid_gating_delta_rule_update,
)
from sglang.kernels.ops.attention.triton_gdn_fused_proj import (
    fused_qkvzba_split_reshape_cat,
    fused_qkvzba_split_reshape_cat_contiguous,
)
from sglang.kernels.ops.elementwise.elementwise import fused_gate_sigmoid_mul_add, fused_sigmoid_mul
from sglang.kernels.ops.mamba.causal_conv1d_triton import causal_conv1d_fn, causal_conv1d_update
from sglang.kernels.ops.mamba.mamba_state_scatter_triton import (
    scatter_mamba_states_after_mtp_verify,
    track_mamba_states_all_layers,
    track_mamba_states_if_needed,
)

from sglang_dflash.cpu.recurrent import projections, states
from sglang_dflash.kernels.causal_conv.naive import conv_nodes, conv_ragged, conv_step, node_rows
from sglang_dflash.kernels.chunks.plan import plan_chunks
from sglang_dflash.kernels.gated_delta.naive import delta_nodes, delta_step, gates
from sglang_dflash.kernels.gated_delta.prefill import delta_prefill
from sglang_dflash.kernels.tree_links.naive import links_from_parents
from sglang_dflash.kernels.visibility.naive import visibility_from_parents

DEVICE = os.environ["SGLANG_DFLASH_KERNEL_CASES"]
close = dict(rtol=1e-4, atol=1e-4)
needs_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="SGLang's launcher asks for a GPU")
DIMS = (16, 8)
SLOTS = torch.tensor([5, 0, 2], dtype=torch.int32)


def to(*tensors):
    return tuple(t if t is None else t.to(DEVICE) for t in tensors)


def test_conv_step():
    x, weight, bias, pool = conv_case((3,), channels=40, device=DEVICE)
    mine, (slots,) = pool.clone(), to(SLOTS)
    wanted = causal_conv1d_update(x.clone(), pool, weight, bias, "silu", conv_state_indices=slots)
    got = conv_step(x, mine, slots.long(), weight, bias, True)
    torch.testing.assert_close(got, wanted, **close)
    torch.testing.assert_close(mine, pool, **close)


@pytest.mark.parametrize("lens", ((9,), (1, 2, 70)))
def test_conv_of_prompts(lens):
    x, weight, bias, pool = conv_case((sum(lens),), channels=40, device=DEVICE)
    bounds = [sum(lens[:i]) for i in range(len(lens) + 1)]
    mine, (slots, starts) = pool.clone(), to(SLOTS[: len(lens)], torch.tensor(bounds, dtype=torch.int32))
    wanted = causal_conv1d_fn(
        x.t(),
        weight,
        bias,
        pool,
        starts,
        list(lens),
        cache_indices=slots,
        has_initial_state=torch.ones(len(lens), dtype=torch.bool, device=DEVICE),
        activation="silu",
    ).t()
    got = conv_ragged(x, bounds, mine, slots.long(), weight, bias, True)
    torch.testing.assert_close(got, wanted, **close)
    torch.testing.assert_close(mine, pool, **close)


@pytest.mark.parametrize("tree", (False, True))
def test_conv_of_nodes(tree):
    bs, width, channels = 3, 8, 40
    x, weight, bias, pool = conv_case((bs, width), channels=channels, device=DEVICE)
    parents, (slots,) = trees(bs, width, seed=3) if tree else None, to(SLOTS)
    wanted_windows, windows = (torch.zeros(bs, width, channels, 3, device=DEVICE) for _ in range(2))
    more = {}
    if tree:
        child, sibling = (torch.empty_like(parents) for _ in range(2))
        links_from_parents(parents, child, sibling)
        child, sibling = to(child, sibling)
        more = dict(
            retrieve_next_token=child,
            retrieve_next_sibling=sibling,
            retrieve_parent_token=torch.zeros_like(child),
        )
    before = pool.clone()
    wanted = causal_conv1d_update(
        x.transpose(1, 2).contiguous(),
        pool,
        weight,
        bias,
        "silu",
        conv_state_indices=slots,
        intermediate_conv_window=wanted_windows,
        intermediate_state_indices=torch.arange(bs, dtype=torch.int32, device=DEVICE),
        **more,
    ).transpose(1, 2)
    rows = node_rows(None if parents is None else parents.to(DEVICE), bs, width, 4)
    got = conv_nodes(x, rows, before, slots.long(), weight, bias, True, windows)
    real = torch.ones(bs, width, dtype=torch.bool) if parents is None else parents >= 0
    real[:, 0] = True  # SGLang's trees have no padding
    torch.testing.assert_close(got[real], wanted[real], **close)
    torch.testing.assert_close(windows[real], wanted_windows[real], **close)


def test_delta_step():
    q, k, v, a, b, rate, bias, pool = delta_case((3,), dims=DIMS, device=DEVICE)
    mine, (slots,) = pool.clone(), to(SLOTS)
    wanted = fused_sigmoid_gating_delta_rule_update(
        rate,
        a,
        bias,
        1.0,
        20.0,
        *(x.unsqueeze(0) for x in (q, k, v)),
        b,
        pool,
        slots,
        use_qk_l2norm_in_kernel=True,
        cu_seqlens=torch.arange(4, dtype=torch.int32, device=DEVICE),
    )[0]
    got = delta_step(q, k, v, gates(a, b, rate, bias), mine, slots.long())
    torch.testing.assert_close(got, wanted, **close)
    torch.testing.assert_close(mine, pool, **close)


@pytest.mark.parametrize("tree", (False, True))
def test_delta_of_nodes(tree):
    bs, width = 3, 8
    q, k, v, a, b, rate, bias, pool = delta_case((bs, width), dims=DIMS, device=DEVICE)
    parents = trees(bs, width, seed=3) if tree else torch.tensor([chain(width)] * bs, dtype=torch.int32)
    slots, parents = to(SLOTS, parents)
    wanted_states, after = (torch.zeros(bs, width, *pool.shape[1:], device=DEVICE) for _ in range(2))
    wanted = fused_sigmoid_gating_delta_rule_update(
        rate,
        a.flatten(0, 1),
        bias,
        1.0,
        20.0,
        *(x.flatten(0, 1).unsqueeze(0) for x in (q, k, v)),
        b.flatten(0, 1),
        pool,
        slots,
        use_qk_l2norm_in_kernel=True,
        cu_seqlens=torch.arange(0, bs * width + 1, width, dtype=torch.int32, device=DEVICE),
        disable_state_update=True,
        intermediate_states_buffer=wanted_states,
        intermediate_state_indices=torch.arange(bs, dtype=torch.int32, device=DEVICE),
        cache_steps=width,
        # As it is: SGLang's kernel for trees takes parents.
        retrieve_parent_token=parents if tree else None,
    )[0].view(bs, width, *v.shape[2:])
    ancestors, gate = visibility_from_parents(parents), gates(a, b, rate, bias)
    got = delta_nodes(q, k, v, gate, parents if tree else None, ancestors, pool, slots.long(), after)
    real = parents >= 0
    real[:, 0] = True
    torch.testing.assert_close(got[real], wanted[real], **close)
    torch.testing.assert_close(after[real], wanted_states[real], **close)


def _prompts(lens, seed=0):
    bounds = [sum(lens[:i]) for i in range(len(lens) + 1)]
    slots, starts = to(SLOTS[: len(lens)], torch.tensor(bounds, dtype=torch.int32))
    return bounds, slots, starts, delta_case((sum(lens),), dims=(16, 16), seed=seed, device=DEVICE)


@pytest.mark.parametrize("lens", ((9,), (70, 1, 64)))
def test_delta_of_prompts(lens):
    """Against the recurrent kernel; the chunked one runs on a GPU only."""
    bounds, slots, starts, (q, k, v, a, b, rate, bias, pool) = _prompts(lens)
    mine = pool.clone()
    wanted = fused_sigmoid_gating_delta_rule_update(
        rate,
        a,
        bias,
        1.0,
        20.0,
        *(x.unsqueeze(0) for x in (q, k, v)),
        b,
        pool,
        slots,
        use_qk_l2norm_in_kernel=True,
        cu_seqlens=starts,
    )[0]
    plan = plan_chunks(bounds, torch.device(DEVICE))
    got = delta_prefill(q, k, v, gates(a, b, rate, bias), plan, mine, slots.long())
    torch.testing.assert_close(got, wanted, **close)
    torch.testing.assert_close(mine, pool, **close)


@needs_gpu
def test_delta_of_prompts_in_chunks():
    """In bfloat16: SGLang's prefill takes nothing wider."""
    bounds, slots, starts, (q, k, v, a, b, rate, bias, pool) = _prompts((130, 1, 64))
    q, k, v = (x.bfloat16() for x in (q, k, v))
    gate, mine = gates(a, b, rate, bias), pool.clone()
    wanted = chunk_gated_delta_rule(
        *(x.unsqueeze(0) for x in (q, k, v, gate.decay, gate.strength)),
        initial_state=pool,
        initial_state_indices=slots,
        cu_seqlens=starts,
        use_qk_l2norm_in_kernel=True,
    )[0]
    got = delta_prefill(q, k, v, gate, plan_chunks(bounds, torch.device(DEVICE)), mine, slots.long())
    coarse = dict(rtol=2e-2, atol=3e-2)
    torch.testing.assert_close(got, wanted[0], **coarse)
    torch.testing.assert_close(mine, pool, **coarse)


@pytest.mark.parametrize("activation", ("silu", "sigmoid"))
def test_gated_norm(activation):
    torch.manual_seed(0)
    norm = FusedRMSNormGated(24, activation=activation, device=DEVICE, dtype=torch.float32)
    norm.weight.data.normal_()
    x, gate = to(torch.randn(9, 24), torch.randn(9, 24))
    torch.testing.assert_close(projections.rms_norm_gated(norm, x, gate), norm(x, gate), **close)


@needs_gpu
@pytest.mark.parametrize("group_size", (None, 8))
@pytest.mark.parametrize("norm_before_gate", (False, True))
def test_grouped_gated_norm(group_size, norm_before_gate):
    torch.manual_seed(0)
    norm = RMSNorm(24, group_size=group_size, norm_before_gate=norm_before_gate, device=DEVICE)
    norm.weight.data.normal_()
    x, gate = to(torch.randn(9, 24), torch.randn(9, 24))
    for z in (None, gate):
        torch.testing.assert_close(projections.grouped_rms_norm_gated(norm, x, z), norm(x, z), **close)


@pytest.mark.parametrize("share", (1, 2, 4))
def test_split_projections(share):
    torch.manual_seed(0)
    sizes = (2, 2 * share, 16, 8)
    qkvz, ba = to(torch.randn(5, 2 * 2 * 16 + 2 * 2 * share * 8), torch.randn(5, 4 * share))
    for mine, theirs in (
        (projections.split_interleaved_projections, fused_qkvzba_split_reshape_cat),
        (projections.split_projections, fused_qkvzba_split_reshape_cat_contiguous),
    ):
        for got, wanted in zip(mine(qkvz, ba, *sizes), theirs(qkvz, ba, *sizes), strict=True):
            assert torch.equal(got, wanted)


def test_output_gate_and_shared_expert():
    torch.manual_seed(0)
    x, gate, weight = to(torch.randn(5, 32), torch.randn(5, 4, 8), torch.randn(32))
    for form in (gate, gate.flatten(1)):
        wanted = fused_sigmoid_mul(x.clone(), form, inplace=True)
        torch.testing.assert_close(projections.sigmoid_mul(x.clone(), form, inplace=True), wanted, **close)
    shared, mine = to(torch.randn(5, 32), torch.randn(5, 32))
    wanted = mine.clone()
    fused_gate_sigmoid_mul_add(x, weight, shared, wanted)
    projections.add_gated_expert(x, weight, shared, mine)
    torch.testing.assert_close(mine, wanted, **close)


def _caches(seed: int):
    torch.manual_seed(seed)
    layers, slots, bs, width = 2, 9, 4, 5
    return SimpleNamespace(
        conv=[torch.randn(layers, slots, 6, 3, device=DEVICE)],
        temporal=torch.randn(layers, slots, 2, 8, 4, device=DEVICE),
        intermediate_conv_window=[torch.randn(layers, bs, width, 6, 3, device=DEVICE)],
        intermediate_ssm=torch.randn(layers, bs, width, 2, 8, 4, device=DEVICE),
    )


@needs_gpu
@pytest.mark.parametrize("snapshots", (False, True))
def test_commit_of_states(snapshots):
    mine, theirs = _caches(0), _caches(0)
    slots, nodes = to(torch.tensor([3, 7, 1, 2], dtype=torch.int32), torch.tensor([4, 0, 2, 1]))
    kept = to(torch.tensor([5, 6, -1, 8]), torch.tensor([1, -1, 3, 4])) if snapshots else (None, None)
    scatter_mamba_states_after_mtp_verify(theirs, slots, nodes, *kept)
    states.scatter_after_verify(mine, slots, nodes, *kept)
    assert torch.equal(mine.temporal, theirs.temporal) and torch.equal(mine.conv[0], theirs.conv[0])


def test_snapshots_of_decode():
    mine, theirs = _caches(0), _caches(0)
    arguments = to(
        torch.tensor([3, 7, 1, 2], dtype=torch.int32),
        torch.tensor([True, False, True, True]),
        torch.tensor([5, 6, 0, 8]),
    )
    track_mamba_states_all_layers(theirs.conv[0], theirs.temporal, *arguments, 4)
    states.track_all_layers(mine.conv[0], mine.temporal, *arguments, 4)
    assert torch.equal(mine.temporal, theirs.temporal) and torch.equal(mine.conv[0], theirs.conv[0])
    track_mamba_states_if_needed(theirs.conv[0][1], theirs.temporal[1], *arguments, 4)
    states.track_one_layer(mine.conv[0][1], mine.temporal[1], *arguments, 4)
    assert torch.equal(mine.temporal, theirs.temporal) and torch.equal(mine.conv[0], theirs.conv[0])
