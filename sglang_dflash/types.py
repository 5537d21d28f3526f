"""What the steps of a round hand to each other: plain values, every field with its shape.

``bs`` requests, block size ``B``, verify width ``W`` (nodes per request, the anchor included),
path length ``D`` (deepest possible node + 1; ``D == W`` for a chain).
"""

from typing import NamedTuple

import torch


class BlockInputs(NamedTuple):
    """Inputs of one draft pass over ``[anchor, mask x (B - 1)]`` per request."""

    ids: torch.Tensor  # [bs * B] int64
    positions: torch.Tensor  # [bs * B] int64
    slots: torch.Tensor  # [bs * B] int64, KV slots of the block


class Proposal(NamedTuple):
    """The nodes that the target verifies: a tree, of which the chain is one value.

    Node 0 is the anchor (the root). Every node follows its parent: ``parents[b, i] < i``.
    A node ``i > 0`` whose parent is -1 is padding and can never be accepted.
    """

    tokens: torch.Tensor  # [bs, W] int64
    parents: torch.Tensor | None  # [bs, W] int32, root -1; None for a chain (parent of i is i - 1)
    depths: torch.Tensor  # [W] int64 where all requests share the shape, else [bs, W]
    positions: torch.Tensor  # [bs, W] int64, prefix length + depth
    max_depth: int  # depth of the deepest node that the shape allows


class Acceptance(NamedTuple):
    """The outcome of one verify pass; all tensors are allocated by the caller and overwritten.

    ``commit_lens`` counts KV rows kept (anchor + correct drafts) and tokens emitted (correct
    drafts + bonus token) alike.
    """

    path: torch.Tensor  # [bs, D] int64, node of the d-th accepted depth, path[:, 0] = 0, padded with -1
    num_correct_drafts: torch.Tensor  # [bs] int32
    commit_lens: torch.Tensor  # [bs] int32, num_correct_drafts + 1
    bonus: torch.Tensor  # [bs] int64, the target's token after the last accepted node
    emitted: torch.Tensor  # [bs, D] int64, accepted draft tokens, then the bonus token, then 0
    new_prefix_lens: torch.Tensor  # [bs] int64, prefix_lens + commit_lens


def empty_acceptance(bs: int, path_len: int, device: torch.device | str) -> Acceptance:
    """Uninitialised ``Acceptance`` for ``bs`` requests and paths of ``path_len`` nodes."""

    def empty(*shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    return Acceptance(
        path=empty(bs, path_len),
        num_correct_drafts=empty(bs, dtype=torch.int32),
        commit_lens=empty(bs, dtype=torch.int32),
        bonus=empty(bs),
        emitted=empty(bs, path_len),
        new_prefix_lens=empty(bs),
    )


def empty_block_inputs(num_tokens: int, device: torch.device | str) -> BlockInputs:
    """Uninitialised ``BlockInputs`` for ``num_tokens`` = bs * B rows."""
    return BlockInputs(*(torch.empty(num_tokens, dtype=torch.int64, device=device) for _ in range(3)))
