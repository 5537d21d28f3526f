"""The gated delta rule against its recurrence as a loop in float64, and against transformers' own."""

import pytest
import torch
from linear_oracles import chain, delta_case, delta_loop, trees
from transformers.models.qwen3_next import modeling_qwen3_next as reference

from sglang_dflash.kernels.chunks.plan import Keep, plan_chunks
from sglang_dflash.kernels.gated_delta.naive import delta_nodes, delta_step, gates
from sglang_dflash.kernels.gated_delta.prefill import delta_prefill
from sglang_dflash.kernels.node_states import naive as node_states
from sglang_dflash.kernels.visibility.naive import visibility_from_parents

HEADS = ((2, 4), (3, 3), (1, 4))
close = dict(rtol=1e-4, atol=1e-5)


def test_gates():
    _, _, _, a, b, rate, bias, _ = delta_case((5,))
    gate = gates(a, b, rate, bias)
    wanted = -rate.double().exp() * torch.log1p((a + bias).double().exp())
    torch.testing.assert_close(gate.decay.double(), wanted, **close)
    torch.testing.assert_close(gate.strength.double(), 1 / (1 + (-b.double()).exp()), **close)


@pytest.mark.parametrize("heads", HEADS)
def test_step(heads):
    q, k, v, a, b, rate, bias, states = delta_case((3,), heads)
    slots, before, gate = torch.tensor([5, 0, 2]), states.clone(), gates(a, b, rate, bias)
    out = delta_step(q, k, v, gate, states, slots)
    for row, slot in enumerate(slots):
        now = slice(row, row + 1)
        wanted, after = delta_loop(q[now], k[now], v[now], *(g[now] for g in gate), [-1], before[slot])
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
    q, k, v, a, b, rate, bias, states = delta_case((bs, width), heads, seed=width)
    slots, before, gate = torch.tensor([5, 0, 2]), states.clone(), gates(a, b, rate, bias)
    parents = trees(bs, width, seed=1) if tree else torch.tensor([chain(width)], dtype=torch.int32)
    after = torch.full((bs, width, *states.shape[1:]), torch.nan)
    # Padding has no ancestors: it reads the request's state, like a root.
    ancestors = visibility_from_parents(parents)
    out = delta_nodes(q, k, v, gate, parents if tree else None, ancestors, states, slots, after)
    assert torch.equal(states, before)
    for row, slot in enumerate(slots):
        path = parents[row if tree else 0].tolist()
        wanted, all_states = delta_loop(q[row], k[row], v[row], *(g[row] for g in gate), path, before[slot])
        torch.testing.assert_close(out[row].double(), wanted, **close)
        real = [node == 0 or parent >= 0 for node, parent in enumerate(path)]
        torch.testing.assert_close(after[row, real].double(), all_states[real], **close)


@pytest.mark.parametrize("lens", ((1,), (9,), (64,), (1, 2, 1), (130, 1, 64, 70, 3)))
def test_prompts_and_kept_states(lens):
    q, k, v, a, b, rate, bias, states = delta_case((sum(lens),), slots=16)
    bounds = [sum(lens[:i]) for i in range(len(lens) + 1)]
    slots, before, gate = torch.tensor([6, 1, 0, 3, 5])[: len(lens)], states.clone(), gates(a, b, rate, bias)
    keep = [Keep(request, n // 64, 8 + request) for request, n in enumerate(lens) if n % 64 and n > 64]
    out = delta_prefill(q, k, v, gate, plan_chunks(bounds, torch.device("cpu"), keep), states, slots)
    for request, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        now = slice(start, end)
        wanted, after = delta_loop(
            q[now], k[now], v[now], *(g[now] for g in gate), chain(end - start), before[slots[request]]
        )
        torch.testing.assert_close(out[now].double(), wanted, **close)
        torch.testing.assert_close(states[slots[request]].double(), after[-1], **close)
        for kept in keep:
            if kept.request == request:
                torch.testing.assert_close(states[kept.slot].double(), after[64 * kept.chunks - 1], **close)


def test_long_memories_and_short_ones():
    """Decays near nothing, and so strong that their inverse would not be a float."""
    q, k, v, a, b, rate, bias, states = delta_case((200,))
    rate = torch.tensor([-9.0, 0.0, 4.0, 6.0])
    before, gate = states.clone(), gates(a, b, rate, bias)
    out = delta_prefill(q, k, v, gate, plan_chunks([0, 200], torch.device("cpu")), states, torch.tensor([0]))
    wanted, after = delta_loop(q, k, v, *gate, chain(200), before[0])
    torch.testing.assert_close(out.double(), wanted, **close)
    torch.testing.assert_close(states[0].double(), after[-1], **close)


@pytest.mark.parametrize("function", ("torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule"))
def test_transformers(function):
    q, k, v, a, b, rate, bias, states = delta_case((1, 100))
    gate = gates(a, b, rate, bias)
    many = [x.repeat_interleave(2, 2) for x in (q, k)]
    wanted, last = getattr(reference, function)(
        *many,
        v,
        g=gate.decay,
        beta=gate.strength,
        initial_state=states[:1].transpose(2, 3).contiguous(),
        output_final_state=True,
        use_qk_l2norm_in_kernel=True,
    )
    flat = [x[0] for x in (q, k, v)]
    slot, states = torch.tensor([0]), states.clone()
    plan = plan_chunks([0, 100], torch.device("cpu"))
    out = delta_prefill(*flat, type(gate)(*(g[0] for g in gate)), plan, states, slot)
    torch.testing.assert_close(out, wanted[0], **close)
    torch.testing.assert_close(states[:1], last.transpose(2, 3), **close)
