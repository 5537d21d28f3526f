"""The gated delta rule of linear-attention layers (Yang et al., arXiv 2412.06464); what the CPU serves with.

Per head a state S [V, K]. A token with log decay g, write strength b, key k and value v does

    S <- exp(g) S;  u = b (v - S k);  S <- S + u k^T;  output S q / sqrt(K)

with q and k normalised to length one. ``H`` query and key heads, ``HV`` value heads, ``HV / H`` of them share a
key head. All arithmetic is float32.

A window of tokens is one triangular system instead of a loop: with G the sums of g along each token's path,
u_i = b_i (v_i - exp(G_i) S0 k_i - sum over ancestors j of exp(G_i - G_j) (k_i . k_j) u_j). For a chain the ancestors
are all earlier tokens; for a tree they are the node's own path, which is all that a tree changes.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from sglang_dflash.kernels.node_states.naive import write_node_states
from sglang_dflash.kernels.paths.naive import decay_along_paths, per_head

EPS = 1e-6


class Gates(NamedTuple):
    """Per token and value head: log decay, and write strength."""

    decay: torch.Tensor  # [..., HV] float32, <= 0
    strength: torch.Tensor  # [..., HV] float32


def gates(a: torch.Tensor, b: torch.Tensor, log_rate: torch.Tensor, time_bias: torch.Tensor) -> Gates:
    """a, b [..., HV] of the layer's projections; log_rate, time_bias [HV] its parameters."""
    return Gates(-log_rate.float().exp() * F.softplus(a.float() + time_bias), b.float().sigmoid())


def delta_step(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, gate: Gates, states: torch.Tensor, slots: torch.Tensor
) -> torch.Tensor:
    """One token per request: q, k [bs, H, K], v [bs, HV, V] -> [bs, HV, V]; ``states[slots]`` advance.

    states: [slots, HV, V, K].
    """
    heads = v.shape[1]
    q, k = per_head(_unit(q) * q.shape[-1] ** -0.5, heads), per_head(_unit(k), heads)
    state = states.index_select(0, slots).float() * gate.decay.exp()[..., None, None]
    read = torch.matmul(state, k.unsqueeze(3)).squeeze(3)
    update = (v.float() - read) * gate.strength.unsqueeze(2)
    state = state + update.unsqueeze(3) * k.unsqueeze(2)
    states.index_copy_(0, slots, state.to(states.dtype))
    return torch.matmul(state, q.unsqueeze(3)).squeeze(3).to(v.dtype)


def delta_nodes(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    gate: Gates,
    parents: torch.Tensor | None,
    ancestors: torch.Tensor,
    states: torch.Tensor,
    slots: torch.Tensor,
    node_states: torch.Tensor,
) -> torch.Tensor:
    """The nodes of a proposal, each after its parent: q, k [bs, W, H, K], v [bs, W, HV, V] -> [bs, W, HV, V].

    parents [bs, W] int32 as in ``Proposal``, None for a chain; ancestors [bs or 1, W, W] bool: j is node i or an
    ancestor of it. ``states`` [slots, HV, V, K] stay; ``node_states`` [bs, W, HV, V, K] get the state after each
    node, but for padding, whose is undefined.
    """
    heads = v.shape[2]
    window = _window(q, k, v, gate, ancestors.unsqueeze(1), heads)
    state = states.index_select(0, slots).float()
    outer = window.total.exp().unsqueeze(3)
    updates = window.solve(window.strength * (window.v - outer * torch.matmul(window.k, state.transpose(2, 3))))
    out = outer * torch.matmul(window.q, state.transpose(2, 3)) + torch.matmul(window.attend, updates)
    decay = gate.decay.exp()
    write_node_states(node_states, state, updates, window.k, decay, window.between, window.total, parents)
    return out.transpose(1, 2).to(v.dtype)


class _Window(NamedTuple):
    """Tokens of windows in float32, heads first: [N, heads, W, dim]; what all of them need of each other."""

    q: torch.Tensor  # [N, HV, W, K], scaled
    k: torch.Tensor  # [N, HV, W, K]
    v: torch.Tensor  # [N, HV, W, V]
    strength: torch.Tensor  # [N, HV, W, 1]
    total: torch.Tensor  # [N, HV, W], decay summed along the path
    between: torch.Tensor  # [N, HV, W, W], decay from a token of the path to this one, 0 off the path
    attend: torch.Tensor  # [N, HV, W, W], between times q . k
    system: torch.Tensor  # [N, HV, W, W], strictly lower triangle counts

    def solve(self, right: torch.Tensor) -> torch.Tensor:
        """Updates [N, HV, W, dim] from what each token would write alone."""
        return torch.linalg.solve_triangular(self.system, right, upper=False, unitriangular=True)


def _window(q, k, v, gate: Gates, ancestors: torch.Tensor, heads: int) -> _Window:
    """q, k [N, W, H, K], v [N, W, HV, V], gates [N, W, HV], ancestors [N or 1, 1, W, W] bool."""
    q, k = (_unit(x).transpose(1, 2) for x in (q, k))
    q = q * q.shape[-1] ** -0.5
    decay, strength = (x.transpose(1, 2) for x in gate)
    total, between = decay_along_paths(decay, ancestors)
    attend = per_head(torch.matmul(q, k.transpose(2, 3)), heads) * between
    system = per_head(torch.matmul(k, k.transpose(2, 3)), heads) * between * strength.unsqueeze(3)
    return _Window(
        per_head(q, heads),
        per_head(k, heads),
        v.float().transpose(1, 2),
        strength.unsqueeze(3),
        total,
        between,
        attend,
        system,
    )


def _unit(x: torch.Tensor) -> torch.Tensor:
    """Vectors of the last dimension at length one, float32."""
    x = x.float()
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + EPS)
