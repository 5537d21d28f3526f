"""Torch twin of the tree's links."""

import torch

from sglang_dflash.kernels.prepare_block.naive import block_offsets


def links_from_parents(parents: torch.Tensor, children: torch.Tensor, siblings: torch.Tensor) -> None:
    """``children``, ``siblings`` [bs, W] int32: each node's first child, and its parent's next child; -1 for none.

    parents [bs, W] int32 as in ``Proposal``. The root and padding have no siblings.
    """
    width = parents.shape[1]
    nodes = block_offsets(width, parents.device)
    first = _first(parents.unsqueeze(1) == nodes.unsqueeze(1), nodes)
    later = nodes > nodes.unsqueeze(1)
    same = (parents.unsqueeze(1) == parents.unsqueeze(2)) & later & (parents >= 0).unsqueeze(2)
    children.copy_(first)
    siblings.copy_(_first(same, nodes))


def _first(wanted: torch.Tensor, nodes: torch.Tensor) -> torch.Tensor:
    """[bs, W, W] bool -> [bs, W]: the first node wanted in each row, -1 for none."""
    width = nodes.shape[0]
    found = torch.where(wanted, nodes, width).amin(2)
    return found.masked_fill_(found == width, -1)
