"""The state-space recurrence of Mamba-2 (Dao and Gu, arXiv 2405.21060); what the CPU serves with.

Per head a state S [P, N]. A token with input x [P], time step d > 0, input and output directions B and C [N] does

    S <- exp(d A) S + d x B^T;  output S C + D x

with A < 0 and D a number per head. ``H`` heads; ``H / G`` of them share the B and C of a group. All arithmetic is
float32.

What a window of tokens adds is a product instead of a loop: with T the sums of d A along each token's path, token i
reads exp(T_i - T_j) d_j (C_i . B_j) x_j of each token j of its path, and exp(T_i) S0 C_i of the state before. For a
chain the path is all earlier tokens; for a tree it is the node's ancestors, which is all that a tree changes.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from sglang_dflash.kernels.chunks.plan import ChunkPlan
from sglang_dflash.kernels.node_states.naive import write_node_states
from sglang_dflash.kernels.paths.naive import decay_along_paths, per_head


class Head(NamedTuple):
    """A layer's parameters, one number per head, [H] float32 each."""

    rate: torch.Tensor  # A, negative
    skip: torch.Tensor  # D
    time_bias: torch.Tensor


class Tokens(NamedTuple):
    """Projected and convolved tokens; leading dimensions ``...`` as the operator says."""

    x: torch.Tensor  # [..., H, P]
    b: torch.Tensor  # [..., G, N]
    c: torch.Tensor  # [..., G, N]
    time: torch.Tensor  # [..., H], before bias and softplus


def ssd_step(tokens: Tokens, head: Head, states: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """One token per request (leading dimension [bs]) -> [bs, H, P]; ``states[slots]`` [slots, H, P, N] advance."""
    heads = tokens.x.shape[1]
    x, time = tokens.x.float(), _time(tokens, head)
    b, c = (per_head(t.float(), heads) for t in (tokens.b, tokens.c))
    state = states.index_select(0, slots).float() * (time * head.rate).exp()[..., None, None]
    state = state + (x * time.unsqueeze(2)).unsqueeze(3) * b.unsqueeze(2)
    states.index_copy_(0, slots, state.to(states.dtype))
    out = torch.matmul(state, c.unsqueeze(3)).squeeze(3) + x * head.skip.unsqueeze(1)
    return out.to(tokens.x.dtype)


def ssd_nodes(
    tokens: Tokens,
    head: Head,
    parents: torch.Tensor | None,
    ancestors: torch.Tensor,
    states: torch.Tensor,
    slots: torch.Tensor,
    node_states: torch.Tensor,
) -> torch.Tensor:
    """The nodes of a proposal, each after its parent (leading dimensions [bs, W]) -> [bs, W, H, P].

    parents [bs, W] int32 as in ``Proposal``, None for a chain; ancestors [bs or 1, W, W] bool: j is node i or an
    ancestor of it. ``states`` [slots, H, P, N] stay; ``node_states`` [bs, W, H, P, N] get the state after each node,
    but for padding, whose is undefined.
    """
    window = _window(tokens, head, ancestors.unsqueeze(1))
    state = states.index_select(0, slots).float()
    out = window.total.exp().unsqueeze(3) * torch.matmul(window.c, state.transpose(2, 3)) + window.inside
    decay = (_time(tokens, head) * head.rate).exp()
    write_node_states(node_states, state, window.write, window.b, decay, window.between, window.total, parents)
    return out.transpose(1, 2).to(tokens.x.dtype)


def ssd_prefill(tokens: Tokens, head: Head, plan: ChunkPlan, states: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """Prompts of any lengths (leading dimension [T]) -> [T, H, P]; ``states[slots]`` [slots, H, P, N] advance.

    Every request starts from its state, which is zero for a new one. All chunks are computed at once and the turns
    only carry the state; ``plan.keep`` says which states on the way go to which slots.
    """
    width = plan.ancestors.shape[1]

    def chunks(t: torch.Tensor) -> torch.Tensor:
        return t.index_select(0, plan.source).view(-1, width, *t.shape[1:])

    window = _window(Tokens(*map(chunks, tokens)), head, plan.ancestors.unsqueeze(1), plan.padding)
    decay = window.total.exp().unsqueeze(3)
    last = window.between[:, :, -1].unsqueeze(3)
    written = torch.matmul((window.write * last).transpose(2, 3), window.b)
    queries = window.c * decay
    slots = slots.index_select(0, plan.order)
    state = states.index_select(0, slots).float()
    out, first = window.inside, 0
    for turn, active in enumerate(plan.turns):
        if turn in plan.keep:
            rows, kept = plan.keep[turn]
            states.index_copy_(0, kept, state.index_select(0, rows).to(states.dtype))
        now = slice(first, first + active)
        before = state[:active]
        out[now] += torch.matmul(queries[now], before.transpose(2, 3))
        before.mul_(decay[now, :, -1:]).add_(written[now])
        first += active
    states.index_copy_(0, slots, state.to(states.dtype))
    return out.transpose(1, 2).flatten(0, 1).index_select(0, plan.place).to(tokens.x.dtype)


class _Window(NamedTuple):
    """Tokens of windows in float32, heads first, and what they need of each other."""

    c: torch.Tensor  # [n, H, W, N]
    b: torch.Tensor  # [n, H, W, N]
    write: torch.Tensor  # [n, H, W, P], time step times input
    total: torch.Tensor  # [n, H, W], log decay summed along the path
    between: torch.Tensor  # [n, H, W, W], decay from a token of the path to this one, 0 off the path
    inside: torch.Tensor  # [n, H, W, P], outputs as far as the window's own tokens go


def _window(tokens: Tokens, head: Head, ancestors: torch.Tensor, padding: torch.Tensor | None = None) -> _Window:
    """Leading dimensions [n, W]; ancestors [n or 1, 1, W, W] bool; padding [n, W] bool."""
    heads = tokens.x.shape[2]
    time = _time(tokens, head)
    if padding is not None:
        # Padding neither decays nor writes, so a short chunk ends in the state of its last token.
        time = time.masked_fill(padding.unsqueeze(2), 0.0)
    x, time = tokens.x.float().transpose(1, 2), time.transpose(1, 2)
    b, c = (t.float().transpose(1, 2) for t in (tokens.b, tokens.c))
    total, between = decay_along_paths(time * head.rate.unsqueeze(1), ancestors)
    write = x * time.unsqueeze(3)
    attend = per_head(torch.matmul(c, b.transpose(2, 3)), heads) * between
    inside = torch.matmul(attend, write) + x * head.skip[:, None, None]
    return _Window(per_head(c, heads), per_head(b, heads), write, total, between, inside)


def _time(tokens: Tokens, head: Head) -> torch.Tensor:
    return F.softplus(tokens.time.float() + head.time_bias)
