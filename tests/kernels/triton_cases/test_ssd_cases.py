"""SGLang's Mamba-2 kernels against our operators; run by ../test_ssd.py in a process of its own."""

import contextlib
import os

import pytest
import torch
from linear_oracles import trees
from sglang.kernels.ops.mamba.triton_ops import (
    mamba_ssm,
    ssd_bmm,
    ssd_chunk_scan,
    ssd_chunk_state,
    ssd_combined,
    ssd_state_passing,
)
from ssd_oracle import ssd_case
from triton.runtime import Autotuner

from sglang_dflash.kernels.chunks.plan import plan_chunks
from sglang_dflash.kernels.ssd.naive import ssd_nodes, ssd_prefill, ssd_step
from sglang_dflash.kernels.visibility.naive import visibility_from_parents

DEVICE = os.environ["SGLANG_DFLASH_KERNEL_CASES"]
HEADS, DIMS = (2, 4), (8, 16)
close = dict(rtol=1e-4, atol=1e-5)


@pytest.fixture(autouse=True)
def host(monkeypatch):
    """On a host there is no device context to enter, and nothing to time configurations with."""
    if DEVICE != "cpu":
        return
    monkeypatch.setattr(torch.cpu, "device", lambda index: contextlib.nullcontext(), raising=False)
    for module in (ssd_bmm, ssd_chunk_scan, ssd_chunk_state, ssd_state_passing):
        for kernel in vars(module).values():
            if isinstance(kernel, Autotuner):
                monkeypatch.setattr(kernel, "configs", kernel.configs[-1:])


def update(tokens, head, states, slots, **more):
    """SGLang's selective state update, one or more tokens per request."""
    size, n = states.shape[2:]
    out = torch.empty_like(tokens.x)
    mamba_ssm.selective_state_update(
        states,
        tokens.x,
        tokens.time[..., None].expand(*tokens.time.shape, size),
        head.rate[:, None, None].expand(-1, size, n),
        tokens.b,
        tokens.c,
        head.skip[:, None].expand(-1, size),
        dt_bias=head.time_bias[:, None].expand(-1, size),
        dt_softplus=True,
        state_batch_indices=slots,
        out=out,
        **more,
    )
    return out


def test_step():
    tokens, head, states = ssd_case((3,), HEADS, DIMS, device=DEVICE)
    slots, expected = torch.tensor([5, 0, 2], device=DEVICE), states.clone()
    wanted = update(tokens, head, expected, slots.int())
    torch.testing.assert_close(ssd_step(tokens, head, states, slots), wanted, **close)
    torch.testing.assert_close(states, expected, **close)


@pytest.mark.parametrize("tree", (False, True))
def test_nodes(tree):
    bs, width = 3, 7
    tokens, head, states = ssd_case((bs, width), HEADS, DIMS, device=DEVICE)
    slots = torch.tensor([5, 0, 2], device=DEVICE)
    parents = torch.arange(-1, width - 1, dtype=torch.int32, device=DEVICE).expand(bs, -1).contiguous()
    if tree:
        parents = trees(bs, width, seed=3).to(DEVICE)
    wanted_after = torch.full((bs, width, *states.shape[1:]), torch.nan, device=DEVICE)
    wanted = update(
        tokens,
        head,
        states,
        slots.int(),
        disable_state_update=True,
        intermediate_states_buffer=wanted_after,
        cache_steps=width,
        retrieve_parent_token=parents if tree else None,
        intermediate_state_indices=torch.arange(bs, dtype=torch.int32, device=DEVICE),
    )
    after = torch.empty_like(wanted_after)
    out = ssd_nodes(tokens, head, parents, visibility_from_parents(parents), states, slots, after)
    # Padding follows the node before it in SGLang's kernel, and the request's state in ours.
    real = torch.ones(bs, width, dtype=torch.bool, device=DEVICE)
    real[:, 1:] = parents[:, 1:] >= 0
    torch.testing.assert_close(out[real], wanted[real], **close)
    torch.testing.assert_close(after[real], wanted_after[real], **close)


@pytest.mark.parametrize("lens", ((40,), (20, 1, 33)))
def test_prompts(lens):
    tokens, head, states = ssd_case((sum(lens),), HEADS, DIMS, device=DEVICE)
    bounds = [sum(lens[:i]) for i in range(len(lens) + 1)]
    slots = torch.tensor([6, 1, 0], device=DEVICE)[: len(lens)]
    cu = torch.tensor(bounds, dtype=torch.int32, device=DEVICE)
    index = torch.repeat_interleave(torch.arange(len(lens), device=DEVICE), cu.diff()).int()[None]
    chunk = 16
    chunks, offsets = pieces(bounds, chunk)
    wanted = torch.empty_like(tokens.x)[None]
    wanted_last = ssd_combined.mamba_chunk_scan_combined(
        tokens.x[None],
        tokens.time[None],
        head.rate,
        tokens.b[None],
        tokens.c[None],
        chunk_size=chunk,
        D=head.skip,
        dt_bias=head.time_bias,
        seq_idx=index,
        chunk_indices=chunks,
        chunk_offsets=offsets,
        cu_seqlens=cu,
        initial_states=states[slots],
        return_varlen_states=True,
        dt_softplus=True,
        out=wanted,
        state_dtype=torch.float32,
    )
    out = ssd_prefill(tokens, head, plan_chunks(bounds, torch.device(DEVICE), (), chunk), states, slots)
    torch.testing.assert_close(out, wanted[0], **close)
    torch.testing.assert_close(states[slots], wanted_last, **close)


def pieces(bounds, chunk):
    """SGLang's logical chunks: the physical chunk of each and where in it the piece begins."""
    starts = sorted({*range(0, bounds[-1], chunk), *bounds[:-1]})
    rows = torch.tensor([(s // chunk, s % chunk) for s in starts], dtype=torch.int32, device=DEVICE)
    return rows[:, 0].contiguous(), rows[:, 1].contiguous()
