"""What recurrent layers of any kind share: the plan of a forward pass, and where a layer's states lie."""

from functools import cache
from typing import NamedTuple

import torch

from sglang_dflash.cpu.host.recurrent import LayerStates, MambaAttnBackendBase
from sglang_dflash.kernels.causal_conv.naive import node_rows
from sglang_dflash.kernels.chunks.plan import ChunkPlan, Keep, plan_chunks


class Prompts(NamedTuple):
    """The plan of a prefill pass."""

    bounds: list[int]
    chunks: ChunkPlan
    conv_kept: tuple[torch.Tensor, torch.Tensor] | None  # inputs [kept, K - 1], slots: convolution windows to keep
    final_kept: tuple[torch.Tensor, torch.Tensor] | None  # request slots, slots: final states to keep

    def keep_windows(self, inputs: torch.Tensor, states: LayerStates) -> None:
        """The radix cache's convolution windows, off the layer's inputs [T, C]."""
        if self.conv_kept is not None:
            rows, slots = self.conv_kept
            states.conv.index_copy_(0, slots, inputs[rows].transpose(1, 2).to(states.conv.dtype))

    def keep_final_states(self, states: LayerStates) -> None:
        """The radix cache's states where they are those that the pass ended with."""
        if self.final_kept is not None:
            source, slots = self.final_kept
            states.temporal.index_copy_(0, slots, states.temporal.index_select(0, source))


class Nodes(NamedTuple):
    """The plan of a verify pass."""

    width: int
    parents: torch.Tensor | None  # [bs, W] int32, None for a chain
    rows: torch.Tensor | None  # of ``node_rows``
    ancestors: torch.Tensor  # [bs or 1, W, W] bool


class RecurrentLayers(MambaAttnBackendBase):
    """Plans each forward pass once: None for decode, ``Prompts`` or ``Nodes`` otherwise.

    In verify ``spec_info.parents`` [bs, W] and ``spec_info.visibility`` [bs, W, W] give a tree, and their
    absence a chain; every node's state comes from its parent, and the requests' own states stay.
    """

    needs_cpu_seq_lens = False

    def __init__(self, runner):
        super().__init__(runner)
        # The base class reads the window's length off this shape.
        self.conv_states_shape = self.req_to_token_pool.mamba_pool.mamba_cache.conv[0].shape
        self._layers: dict[int, LayerStates] = {}
        self._slots = torch.empty(0, dtype=torch.int64)
        self._plan: Prompts | Nodes | None = None

    def init_forward_metadata(self, forward_batch) -> None:
        """Plan one forward pass, shared by all layers."""
        # Not super(): Mamba-2's own metadata is for its kernels, and drops what ours need.
        MambaAttnBackendBase.init_forward_metadata(self, forward_batch)
        self._slots = self.forward_metadata.mamba_cache_indices.long()
        if forward_batch.forward_mode.is_target_verify():
            self._plan = plan_nodes(forward_batch, self.conv_states_shape[-1] + 1)
        elif forward_batch.logical_forward_mode.is_decode_or_idle():
            self._plan = None
        else:
            self._plan = plan_prompts(forward_batch, self.forward_metadata, self.mamba_chunk_size)

    def states_of(self, layer_id: int) -> LayerStates:
        """The states of one layer."""
        if layer_id not in self._layers:
            self._layers[layer_id] = LayerStates(self.req_to_token_pool, layer_id)
        return self._layers[layer_id]


def plan_nodes(forward_batch, taps: int) -> Nodes:
    """taps: K of the convolution."""
    spec_info, bs = forward_batch.spec_info, forward_batch.batch_size
    width, parents = spec_info.draft_token_num, getattr(spec_info, "parents", None)
    if parents is None:
        return Nodes(width, None, None, _chain(width))
    return Nodes(width, parents, node_rows(parents, bs, width, taps), spec_info.visibility)


@cache
def _chain(width: int) -> torch.Tensor:
    return torch.ones(1, width, width, dtype=torch.bool).tril_()


def plan_prompts(forward_batch, metadata, chunk: int) -> Prompts:
    """metadata: SGLang's, of the same pass; it says which states the radix cache wants, in chunks of ``chunk``."""
    bounds = [0]
    for length in forward_batch.extend_seq_lens_cpu:
        bounds.append(bounds[-1] + int(length))
    device = metadata.mamba_cache_indices.device
    if not metadata.has_mamba_track_mask:
        return Prompts(bounds, plan_chunks(bounds, device, chunk=chunk), None, None)
    tracked = metadata.mamba_track_mask_indices
    if tracked is None:
        tracked = forward_batch.mamba_track_mask.nonzero().squeeze(1)
    snapshots, turns = forward_batch.mamba_track_indices.tolist(), metadata.track_chunk_idx.tolist()
    keep = [Keep(row, turns[row], snapshots[row]) for row in metadata.track_ssm_h_batch_src.tolist()]
    return Prompts(
        bounds,
        plan_chunks(bounds, device, keep, chunk),
        (metadata.track_conv_indices, forward_batch.mamba_track_indices[tracked].long()),
        (metadata.track_ssm_final_src.long(), metadata.track_ssm_final_dst.long()),
    )
