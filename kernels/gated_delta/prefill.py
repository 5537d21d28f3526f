"""The gated delta rule over prompts: requests of any lengths, in chunks, as few batched products as possible."""

import torch

from sglang_dflash.kernels.chunks.plan import ChunkPlan
from sglang_dflash.kernels.gated_delta.naive import Gates, _window


def delta_prefill(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    gate: Gates,
    plan: ChunkPlan,
    states: torch.Tensor,
    slots: torch.Tensor,
) -> torch.Tensor:
    """q, k [T, H, K], v [T, HV, V] -> [T, HV, V]; ``states[slots]`` [slots, HV, V, K] advance, ``plan.keep`` is kept.

    Every request starts from its state, which is zero for a new one. The updates of a chunk are linear in the
    state it starts from: everything else of all chunks is computed at once, and the turns only carry the state.
    """
    heads, width = v.shape[1], plan.ancestors.shape[1]

    def chunks(x: torch.Tensor) -> torch.Tensor:
        return x.index_select(0, plan.source).view(-1, width, *x.shape[1:])

    decay, strength = (chunks(x) for x in gate)
    if plan.padding is not None:
        # Padding neither decays nor writes, so a short chunk ends in the state of its last token.
        decay, strength = (x.masked_fill(plan.padding.unsqueeze(2), 0.0) for x in (decay, strength))
    window = _window(chunks(q), chunks(k), chunks(v), Gates(decay, strength), plan.ancestors.unsqueeze(1), heads)
    outer = window.total.exp().unsqueeze(3)
    alone = window.strength * torch.cat((window.v, outer * window.k), 3)
    written, read = window.solve(alone).split((v.shape[2], k.shape[2]), 3)
    last = window.between[:, :, -1].unsqueeze(3)
    keys, queries = window.k * last, window.q * outer
    slots = slots.index_select(0, plan.order)
    state = states.index_select(0, slots).float()
    out = torch.empty_like(window.v)
    first = 0
    for turn, active in enumerate(plan.turns):
        if turn in plan.keep:
            rows, kept = plan.keep[turn]
            states.index_copy_(0, kept, state.index_select(0, rows).to(states.dtype))
        now = slice(first, first + active)
        before = state[:active]
        updates = written[now] - torch.matmul(read[now], before.transpose(2, 3))
        out[now] = torch.matmul(queries[now], before.transpose(2, 3)) + torch.matmul(window.attend[now], updates)
        before.mul_(outer[now, :, -1:]).add_(torch.matmul(updates.transpose(2, 3), keys[now]))
        first += active
    states.index_copy_(0, slots, state.to(states.dtype))
    return out.transpose(1, 2).flatten(0, 1).index_select(0, plan.place).to(v.dtype)
