"""Gated-delta-net layers on the host: decode, prefill with the radix cache's snapshots, verify of a chain or a tree."""

import torch

from sglang_dflash.cpu.host.recurrent import LayerStates
from sglang_dflash.cpu.recurrent.plan import Nodes, RecurrentLayers
from sglang_dflash.kernels.causal_conv.naive import conv_nodes, conv_ragged, conv_step
from sglang_dflash.kernels.gated_delta.naive import delta_nodes, delta_step, gates
from sglang_dflash.kernels.gated_delta.prefill import delta_prefill


class GatedDeltaAttention(RecurrentLayers):
    """The recurrent half of a gated-delta-net hybrid; SGLang's hybrid backend calls it for its layers."""

    def forward_decode(self, layer, forward_batch, mixed_qkv, a, b, **unused) -> torch.Tensor:
        """One token per request: mixed_qkv [bs, C], a, b [bs, HV] -> [1, bs, HV, V]."""
        states = self.states_of(layer.layer_id)
        x = conv_step(mixed_qkv, states.conv, self._slots, *_conv_of(layer))
        gate = gates(a, b, layer.A_log, layer.dt_bias)
        out = delta_step(*_split(layer, x), gate, states.temporal, self._slots)
        self._track_mamba_state_decode(forward_batch, states.conv, states.temporal, self._slots, layer.layer_id)
        return out.unsqueeze(0)

    def forward_extend(self, layer, forward_batch, mixed_qkv, a, b, **unused) -> torch.Tensor:
        """Prompts or nodes: mixed_qkv [T, C], a, b [T, HV] -> [1, T, HV, V]."""
        states, gate = self.states_of(layer.layer_id), gates(a, b, layer.A_log, layer.dt_bias)
        plan = self._plan
        if isinstance(plan, Nodes):
            return self._verify(layer, plan, states, mixed_qkv, gate)
        assert plan is not None  # decode has a method of its own
        plan.keep_windows(mixed_qkv, states)
        x = conv_ragged(mixed_qkv, plan.bounds, states.conv, self._slots, *_conv_of(layer))
        out = delta_prefill(*_split(layer, x), gate, plan.chunks, states.temporal, self._slots)
        plan.keep_final_states(states)
        return out.unsqueeze(0)

    def _verify(self, layer, plan: Nodes, states: LayerStates, mixed_qkv, gate) -> torch.Tensor:
        width, parents, rows, ancestors = plan
        bs = self._slots.numel()
        windows, after = states.node_windows[:bs, :width], states.node_states[:bs, :width]
        x = mixed_qkv.view(bs, width, -1)
        x = conv_nodes(x, rows, states.conv, self._slots, *_conv_of(layer), windows)
        gate = type(gate)(*(value.view(bs, width, -1) for value in gate))
        out = delta_nodes(*_split(layer, x), gate, parents, ancestors, states.temporal, self._slots, after)
        return out.reshape(1, bs * width, *out.shape[2:])


def _conv_of(layer) -> tuple[torch.Tensor, torch.Tensor | None, bool]:
    """weight, bias, silu of a layer's convolution."""
    return layer.conv_weights, layer.bias, layer.activation in ("silu", "swish")


def _split(layer, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """[..., C] -> q [..., H, K], k [..., H, K], v [..., HV, V]."""
    q, k, v = x.split((layer.q_dim, layer.k_dim, layer.v_dim), -1)
    return (
        q.unflatten(-1, (layer.num_q_heads, layer.head_q_dim)),
        k.unflatten(-1, (layer.num_k_heads, layer.head_k_dim)),
        v.unflatten(-1, (layer.num_v_heads, layer.head_v_dim)),
    )
