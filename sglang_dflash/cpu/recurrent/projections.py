"""Torch twins of the fused operators around a gated-delta-net layer: its projections' layouts, its gates, its norm."""

import torch
import torch.nn.functional as F


def split_projections(
    mixed_qkvz: torch.Tensor, mixed_ba: torch.Tensor, heads_qk: int, heads_v: int, head_qk: int, head_v: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Layout [all q | all k | all v | all z] and [all b | all a] -> qkv [T, C], z [T, HV, V], b, a [T, HV]."""
    qkv = 2 * heads_qk * head_qk + heads_v * head_v
    z = mixed_qkvz[:, qkv:].unflatten(1, (heads_v, head_v))
    return mixed_qkvz[:, :qkv], z, mixed_ba[:, :heads_v], mixed_ba[:, heads_v:]


def split_interleaved_projections(
    mixed_qkvz: torch.Tensor, mixed_ba: torch.Tensor, heads_qk: int, heads_v: int, head_qk: int, head_v: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """As above from the layout [q | k | v | z] and [b | a] of one key head after the other."""
    share = heads_v // heads_qk
    sizes = (head_qk, head_qk, share * head_v, share * head_v)
    q, k, v, z = mixed_qkvz.unflatten(1, (heads_qk, sum(sizes))).split(sizes, 2)
    b, a = mixed_ba.unflatten(1, (heads_qk, 2 * share)).split(share, 2)
    qkv = torch.cat((q.flatten(1), k.flatten(1), v.flatten(1)), 1)
    return qkv, z.reshape(-1, heads_v, head_v), b.reshape(-1, heads_v), a.reshape(-1, heads_v)


def sigmoid_mul(
    attn_output: torch.Tensor, gate: torch.Tensor, inplace: bool = False, quant: bool = False
) -> torch.Tensor:
    """attn_output [T, heads * dim] times the sigmoid of gate, of that shape or [T, heads, dim]."""
    gate = torch.sigmoid(gate.reshape(attn_output.shape))
    return attn_output.mul_(gate) if inplace else attn_output * gate


def add_gated_expert(
    hidden_states: torch.Tensor,
    gate_weight: torch.Tensor,
    shared_output: torch.Tensor,
    final_hidden_states: torch.Tensor,
) -> None:
    """Add shared_output * sigmoid(hidden_states @ gate_weight) in place; all [T, hidden], gate_weight [hidden]."""
    gate = torch.sigmoid(hidden_states @ gate_weight)
    final_hidden_states.addcmul_(shared_output, gate.unsqueeze(1))


def rms_norm_gated(self, x, g, residual=None, prenorm=False, residual_in_fp32=False) -> torch.Tensor:
    """Forward of SGLang's FusedRMSNormGated: norm(x) * weight * activation(g); x, g: [..., n]."""
    return _gated_norm(x, g, self.weight, self.eps, self.activation)


def _gated_norm(x, gate, weight, eps: float, activation: str) -> torch.Tensor:
    exact, gate = x.float(), gate.float()
    normed = exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + eps)
    gate = torch.sigmoid(gate) if activation == "sigmoid" else F.silu(gate)
    return (normed * weight.float() * gate).to(x.dtype)


def grouped_rms_norm_gated(self, x, z=None) -> torch.Tensor:
    """Forward of SGLang's gated RMSNorm with its options; x, z: [..., n]."""
    groups = 1 if self.group_size is None else x.shape[-1] // self.group_size
    exact = x.float()
    gate = None
    if z is not None:
        gate = torch.sigmoid(z.float()) if self.activation == "sigmoid" else F.silu(z.float())
    if gate is not None and not self.norm_before_gate:
        exact = exact * gate
    exact = exact.unflatten(-1, (groups, -1))
    normed = (exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + self.eps)).flatten(-2)
    normed = normed * self.weight.float()
    if gate is not None and self.norm_before_gate:
        normed = normed * gate
    return normed.to(x.dtype)
