"""Mamba-2's recurrence against a loop in float64, transformers' own, and SGLang's Triton kernels interpreted."""

import pytest
import torch
from linear_oracles import chain, trees
from ssd_oracle import cut, ssd_case, ssd_loop
from test_triton import run_cases
from transformers.models.nemotron_h import modeling_nemotron_h as reference

from sglang_dflash.kernels.chunks.plan import Keep, plan_chunks
from sglang_dflash.kernels.node_states import naive as node_states
from sglang_dflash.kernels.ssd.naive import ssd_nodes, ssd_prefill, ssd_step
from sglang_dflash.kernels.visibility.naive import visibility_from_parents

HEADS = ((2, 4), (3, 3), (1, 4))
close = dict(rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("heads", HEADS)
def test_step(heads):
    tokens, head, states = ssd_case((3,), heads)
    slots, before = torch.tensor([5, 0, 2]), states.clone()
    out = ssd_step(tokens, head, states, slots)
    for row, slot in enumerate(slots):
        wanted, after = ssd_loop(cut(tokens, slice(row, row + 1)), head, [-1], before[slot])
        torch.testing.assert_close(out[row].double(), wanted[0], **close)
        torch.testing.assert_close(states[slot].double(), after[0], **close)
    assert torch.equal(states[[1, 3, 4, 6]], before[[1, 3, 4, 6]])


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("width", (1, 2, 16))
@pytest.mark.parametrize("tree", (False, True))
@pytest.mark.parametrize("large", (False, True))
def test_nodes(heads, width, tree, large, monkeypatch):
    monkeypatch.setattr(node_states, "LARGE", 0 if large else 1 << 30)
    bs = 3
    tokens, head, states = ssd_case((bs, width), heads, seed=width)
    slots, before = torch.tensor([5, 0, 2]), states.clone()
    parents = trees(bs, width, seed=1) if tree else torch.tensor([chain(width)], dtype=torch.int32)
    after = torch.full((bs, width, *states.shape[1:]), torch.nan)
    ancestors = visibility_from_parents(parents)
    out = ssd_nodes(tokens, head, parents if tree else None, ancestors, states, slots, after)
    assert torch.equal(states, before)
    for row, slot in enumerate(slots):
        path = parents[row if tree else 0].tolist()
        wanted, all_states = ssd_loop(cut(tokens, row), head, path, before[slot])
        torch.testing.assert_close(out[row].double(), wanted, **close)
        real = [node == 0 or parent >= 0 for node, parent in enumerate(path)]
        torch.testing.assert_close(after[row, real].double(), all_states[real], **close)


@pytest.mark.parametrize("lens", ((1,), (9,), (64,), (1, 2, 1), (130, 1, 64, 70, 3)))
def test_prompts_and_kept_states(lens):
    tokens, head, states = ssd_case((sum(lens),), slots=16)
    bounds = [sum(lens[:i]) for i in range(len(lens) + 1)]
    slots, before = torch.tensor([6, 1, 0, 3, 5])[: len(lens)], states.clone()
    keep = [Keep(request, n // 64, 8 + request) for request, n in enumerate(lens) if n % 64 and n > 64]
    out = ssd_prefill(tokens, head, plan_chunks(bounds, torch.device("cpu"), keep, 64), states, slots)
    for request, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        now = cut(tokens, slice(start, end))
        wanted, after = ssd_loop(now, head, chain(end - start), before[slots[request]])
        torch.testing.assert_close(out[start:end].double(), wanted, **close)
        torch.testing.assert_close(states[slots[request]].double(), after[-1], **close)
        for kept in keep:
            if kept.request == request:
                torch.testing.assert_close(states[kept.slot].double(), after[64 * kept.chunks - 1], **close)


def test_long_memories_and_short_ones():
    """Decays near nothing, and so strong that their inverse would not be a float."""
    tokens, head, states = ssd_case((200,))
    head = head._replace(rate=torch.tensor([-1e-4, -1.0, -50.0, -400.0]))
    before = states.clone()
    out = ssd_prefill(tokens, head, plan_chunks([0, 200], torch.device("cpu")), states, torch.tensor([0]))
    wanted, after = ssd_loop(tokens, head, chain(200), before[0])
    torch.testing.assert_close(out.double(), wanted, **close)
    torch.testing.assert_close(states[0].double(), after[-1], **close)


def test_transformers_prompt():
    tokens, head, states = ssd_case((1, 100))
    wanted, last = reference.mamba2_chunk_scan(
        tokens.x,
        tokens.time,
        head.rate,
        tokens.b,
        tokens.c,
        16,
        D=head.skip,
        dt_bias=head.time_bias,
        initial_states=states[:1],
        dt_softplus=True,
        return_final_states=True,
    )
    plan = plan_chunks([0, 100], torch.device("cpu"))
    out = ssd_prefill(cut(tokens, 0), head, plan, states, torch.tensor([0]))
    torch.testing.assert_close(out, wanted[0], **close)
    torch.testing.assert_close(states[:1], last, **close)


def test_transformers_step():
    tokens, head, states = ssd_case((3,))
    expected, many = states[:3].clone(), [t[:, None, None].expand(-1, 5, 8) for t in head]
    wanted = reference.mamba2_selective_state_update(
        expected,
        tokens.x,
        tokens.time[:, :, None].expand(-1, -1, 5),
        many[0],
        tokens.b,
        tokens.c,
        D=many[1][..., 0],
        dt_bias=many[2][..., 0],
        dt_softplus=True,
    )
    out = ssd_step(tokens, head, states, torch.arange(3))
    torch.testing.assert_close(out, wanted, **close)
    torch.testing.assert_close(states[:3], expected, **close)


def test_sglang_kernels_in_the_interpreter():
    run_cases("test_ssd_cases.py", "cpu", interpret=True)
