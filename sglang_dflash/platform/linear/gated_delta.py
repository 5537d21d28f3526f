"""Gated-delta-net layers on the host: decode, prefill with the radix cache's snapshots, verify of a chain or a tree."""

from typing import NamedTuple

import torch

from sglang_dflash.host.linear_api import LayerStates, MambaAttnBackendBase
from sglang_dflash.kernels.causal_conv.naive import conv_nodes, conv_ragged, conv_step, node_rows
from sglang_dflash.kernels.gated_delta.naive import delta_nodes, delta_step, gates
from sglang_dflash.kernels.gated_delta.prefill import ChunkPlan, Keep, delta_prefill, plan_chunks


class Prompts(NamedTuple):
    """The plan of a prefill pass."""

    bounds: list[int]
    chunks: ChunkPlan
    conv_kept: tuple[torch.Tensor, torch.Tensor] | None  # inputs [kept, K - 1], slots: convolution windows to keep
    final_kept: tuple[torch.Tensor, torch.Tensor] | None  # request slots, slots: final states to keep


class Nodes(NamedTuple):
    """The plan of a verify pass."""

    width: int
    rows: torch.Tensor | None  # of ``node_rows``
    ancestors: torch.Tensor  # [bs or 1, W, W] bool


class GatedDeltaAttention(MambaAttnBackendBase):
    """The recurrent half of a gated-delta-net hybrid; SGLang's hybrid backend calls it for its layers.

    In verify ``spec_info.parents`` [bs, W] and ``spec_info.visibility`` [bs, W, W] give a tree, and their
    absence a chain; every node's state comes from its parent, and the requests' own states stay.
    """

    needs_cpu_seq_lens = False

    def __init__(self, runner):
        super().__init__(runner)
        # The base class reads the window's length off this shape.
        self.conv_states_shape = self.req_to_token_pool.mamba_pool.mamba_cache.conv[0].shape
        self._layers: dict[int, LayerStates] = {}
        self._chain: dict[int, torch.Tensor] = {}
        self._slots: torch.Tensor | None = None
        self._plan: Prompts | Nodes | None = None

    def init_forward_metadata(self, forward_batch) -> None:
        """Plan one forward pass, shared by all layers."""
        super().init_forward_metadata(forward_batch)
        self._slots = self.forward_metadata.mamba_cache_indices.long()
        if forward_batch.forward_mode.is_target_verify():
            self._plan = self._plan_nodes(forward_batch)
        elif forward_batch.logical_forward_mode.is_decode_or_idle():
            self._plan = None
        else:
            self._plan = self._plan_prompts(forward_batch)

    def _plan_nodes(self, forward_batch) -> Nodes:
        spec_info, bs = forward_batch.spec_info, forward_batch.batch_size
        width, taps = spec_info.draft_token_num, self.conv_states_shape[-1] + 1
        parents = getattr(spec_info, "parents", None)
        if parents is not None:
            return Nodes(width, node_rows(parents, bs, width, taps), spec_info.visibility)
        if width not in self._chain:
            self._chain[width] = torch.ones(1, width, width, dtype=torch.bool).tril_()
        return Nodes(width, None, self._chain[width])

    def _plan_prompts(self, forward_batch) -> Prompts:
        bounds = [0]
        for length in forward_batch.extend_seq_lens_cpu:
            bounds.append(bounds[-1] + int(length))
        metadata, device = self.forward_metadata, self._slots.device
        if not metadata.has_mamba_track_mask:
            return Prompts(bounds, plan_chunks(bounds, device, chunk=self.mamba_chunk_size), None, None)
        tracked = metadata.mamba_track_mask_indices
        if tracked is None:
            tracked = forward_batch.mamba_track_mask.nonzero().squeeze(1)
        rows = metadata.track_ssm_h_batch_src.tolist()
        turns = metadata.track_chunk_idx.tolist()
        keep = [
            Keep(row, turns[row], slot) for row, slot in zip(rows, metadata.track_ssm_h_dst.tolist(), strict=True)
        ]
        return Prompts(
            bounds,
            plan_chunks(bounds, device, keep, self.mamba_chunk_size),
            (metadata.track_conv_indices, forward_batch.mamba_track_indices[tracked].long()),
            (metadata.track_ssm_final_src.long(), metadata.track_ssm_final_dst.long()),
        )

    def forward_decode(self, layer, forward_batch, mixed_qkv, a, b, **unused) -> torch.Tensor:
        """One token per request: mixed_qkv [bs, C], a, b [bs, HV] -> [1, bs, HV, V]."""
        states = self._states(layer)
        x = conv_step(mixed_qkv, states.conv, self._slots, *_conv_of(layer))
        gate = gates(a, b, layer.A_log, layer.dt_bias)
        out = delta_step(*_split(layer, x), gate, states.temporal, self._slots)
        self._track_mamba_state_decode(
            forward_batch, states.conv, states.temporal, self._slots, layer.layer_id
        )
        return out.unsqueeze(0)

    def forward_extend(self, layer, forward_batch, mixed_qkv, a, b, **unused) -> torch.Tensor:
        """Prompts or nodes: mixed_qkv [T, C], a, b [T, HV] -> [1, T, HV, V]."""
        states, gate = self._states(layer), gates(a, b, layer.A_log, layer.dt_bias)
        if isinstance(self._plan, Nodes):
            return self._verify(layer, states, mixed_qkv, gate)
        plan = self._plan
        if plan.conv_kept is not None:
            inputs, slots = plan.conv_kept
            states.conv.index_copy_(0, slots, mixed_qkv[inputs].transpose(1, 2).to(states.conv.dtype))
        x = conv_ragged(mixed_qkv, plan.bounds, states.conv, self._slots, *_conv_of(layer))
        out = delta_prefill(*_split(layer, x), gate, plan.chunks, states.temporal, self._slots)
        if plan.final_kept is not None:
            source, slots = plan.final_kept
            states.temporal.index_copy_(0, slots, states.temporal.index_select(0, source))
        return out.unsqueeze(0)

    def _verify(self, layer, states: LayerStates, mixed_qkv, gate) -> torch.Tensor:
        width, rows, ancestors = self._plan
        bs = self._slots.numel()
        windows, after = states.node_windows[:bs, :width], states.node_states[:bs, :width]
        x = mixed_qkv.view(bs, width, -1)
        x = conv_nodes(x, rows, states.conv, self._slots, *_conv_of(layer), windows)
        gate = type(gate)(*(value.view(bs, width, -1) for value in gate))
        out = delta_nodes(*_split(layer, x), gate, ancestors, states.temporal, self._slots, after)
        return out.view(1, bs * width, *out.shape[2:])

    def _states(self, layer) -> LayerStates:
        if layer.layer_id not in self._layers:
            self._layers[layer.layer_id] = LayerStates(self.req_to_token_pool, layer.layer_id)
        return self._layers[layer.layer_id]


def _conv_of(layer) -> tuple:
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
