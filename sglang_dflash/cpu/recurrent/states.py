"""Torch twins of what moves whole recurrent states: commits after verify, and the radix cache's snapshots.

State tensors are [layers, slots, ...], per node [layers, requests, W, ...]. They serve every kind of recurrent
layer: what a convolution or a temporal state looks like does not matter here.
"""

import torch


def scatter_after_verify(
    caches,
    slots: torch.Tensor,
    nodes: torch.Tensor,
    snapshot_slots: torch.Tensor | None,
    snapshot_nodes: torch.Tensor | None,
    src_indices_raw: torch.Tensor | None = None,
) -> None:
    """The state after a request's node [bs] goes to its slot [bs], that after another one to its snapshot's.

    Slots and nodes are negative where nothing is to be done. ``caches``: a pool's SpeculativeState.
    ``src_indices_raw`` [bs] are the requests' rows in the per-node tensors, their order where it is None.
    """
    pairs = list(zip(caches.conv, caches.intermediate_conv_window, strict=True))
    pairs.append((caches.temporal, caches.intermediate_ssm))
    rows = src_indices_raw
    if rows is None:
        rows = torch.arange(slots.numel(), device=slots.device)
    targets = [(slots, nodes)]
    if snapshot_slots is not None and snapshot_nodes is not None:
        targets.append((snapshot_slots, snapshot_nodes))
    for slots, nodes in targets:
        valid = ((slots >= 0) & (nodes >= 0)).nonzero().squeeze(1)
        if not valid.numel():
            continue
        row, node, slot = (x.index_select(0, valid).long() for x in (rows, nodes, slots))
        for states, node_states in pairs:
            if states.numel():
                states.index_copy_(1, slot, node_states[:, row, node].to(states.dtype))


def track_all_layers(
    conv_states: torch.Tensor,
    temporal_states: torch.Tensor,
    slots: torch.Tensor,
    wanted: torch.Tensor,
    snapshot_slots: torch.Tensor,
    bs: int,
    check_freed_slots: bool = False,
) -> None:
    """Copy the states of the ``wanted`` [bs] requests from their slots [bs] to their snapshots' [bs], in all layers."""
    tracked = (wanted[:bs] & (snapshot_slots[:bs] >= 0)).nonzero().squeeze(1)
    if not tracked.numel():
        return
    source, target = slots[tracked].long(), snapshot_slots[tracked].long()
    for states in (conv_states, temporal_states):
        states.index_copy_(1, target, states.index_select(1, source))


def track_one_layer(conv_states: torch.Tensor, temporal_states: torch.Tensor, *arguments, **more) -> None:
    """``track_all_layers`` of one layer's states [slots, ...]."""
    track_all_layers(conv_states.unsqueeze(0), temporal_states.unsqueeze(0), *arguments, **more)
