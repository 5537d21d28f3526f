"""Torch twin of the visibility matrix; what the CPU serves with."""

import torch

from sglang_dflash.kernels.prepare_block.naive import block_offsets


def visibility_from_parents(parents: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """``out`` [bs, W, W] bool, made where it is None: ``out[b, i, j]`` iff j is i or an ancestor of i.

    parents [bs, W] int32 as in ``Proposal``; padding nodes see only themselves.
    """
    bs, width = parents.shape
    if out is None:
        out = torch.empty(bs, width, width, dtype=torch.bool, device=parents.device)
    nodes = block_offsets(width, parents.device)
    # The root and padding are their own ancestors, which makes the jumps below idempotent there.
    ancestor = torch.where(parents < 0, nodes, parents.long())
    torch.eq(nodes.unsqueeze(1).expand(bs, width, width), nodes, out=out)
    # Pointer jumping: after k turns a row holds the node and its 2**k - 1 nearest ancestors.
    for _ in range((width - 1).bit_length()):
        out |= out.gather(1, ancestor.unsqueeze(2).expand(bs, width, width))
        ancestor = ancestor.gather(1, ancestor)
    return out
