"""The gated delta rule over prompts: requests of any lengths, in chunks, as few batched products as possible."""

from typing import NamedTuple

import torch

from sglang_dflash.kernels.gated_delta.naive import Gates, _window

CHUNK = 64


class Keep(NamedTuple):
    """A state to keep on the way: of request ``request`` after ``chunks`` whole chunks, in ``slot``."""

    request: int
    chunks: int
    slot: int


class ChunkPlan(NamedTuple):
    """How the tokens of one pass fall into chunks; made once, shared by all layers.

    A turn takes the next chunk of every request that has one. Requests are ordered by length, longest first, so
    a turn's requests are a prefix of that order, and its chunks follow each other.
    """

    order: torch.Tensor  # [bs] int64, requests, longest first
    turns: tuple[int, ...]  # chunks in each turn
    source: torch.Tensor  # [chunks * C] int64, the token at each place; 0 at padding
    place: torch.Tensor  # [T] int64, each token's place
    padding: torch.Tensor | None  # [chunks, C] bool, None where there is none
    ancestors: torch.Tensor  # [1, C, C] bool, the lower triangle
    keep: dict[
        int, tuple[torch.Tensor, torch.Tensor]
    ]  # turn -> rows of the order, slots: kept before the turn


def plan_chunks(
    bounds: list[int], device: torch.device, keep: list[Keep] = (), chunk: int = CHUNK
) -> ChunkPlan:
    """Request r's tokens are rows ``bounds[r]:bounds[r + 1]``; a chunk is ``chunk`` tokens, or fewer if all fit."""
    lens = [end - start for start, end in zip(bounds[:-1], bounds[1:], strict=True)]
    width = min(chunk, max(8, -(-max(lens) // 8) * 8))
    order = sorted(range(len(lens)), key=lambda r: -lens[r])
    counts = [-(-lens[r] // width) for r in order]
    turns = [sum(count > turn for count in counts) for turn in range(counts[0])]
    source = torch.zeros(sum(turns) * width, dtype=torch.int64)
    padding = torch.ones(sum(turns) * width, dtype=torch.bool)
    place = torch.empty(bounds[-1], dtype=torch.int64)
    offset = 0
    for turn, active in enumerate(turns):
        for request in order[:active]:
            first = bounds[request] + turn * width
            n = min(width, bounds[request + 1] - first)
            source[offset : offset + n] = torch.arange(first, first + n)
            place[first : first + n] = torch.arange(offset, offset + n)
            padding[offset : offset + n] = False
            offset += width
    kept: dict[int, tuple[list[int], list[int]]] = {}
    for request, chunks, slot in keep:
        rows, slots = kept.setdefault(chunks, ([], []))
        rows.append(order.index(request))
        slots.append(slot)
    return ChunkPlan(
        torch.tensor(order, device=device),
        tuple(turns),
        source.to(device),
        place.to(device),
        padding.view(-1, width).to(device) if padding.any() else None,
        torch.ones(1, width, width, dtype=torch.bool, device=device).tril_(),
        {turn: tuple(torch.tensor(x, device=device) for x in pair) for turn, pair in kept.items()},
    )


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
    window = _window(
        chunks(q), chunks(k), chunks(v), Gates(decay, strength), plan.ancestors.unsqueeze(1), heads
    )
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
        out[now] = torch.matmul(queries[now], before.transpose(2, 3)) + torch.matmul(
            window.attend[now], updates
        )
        before.mul_(outer[now, :, -1:]).add_(torch.matmul(updates.transpose(2, 3), keys[now]))
        first += active
    states.index_copy_(0, slots, state.to(states.dtype))
    return out.transpose(1, 2).flatten(0, 1).index_select(0, plan.place).to(v.dtype)
