"""The tree's links as one launch: a program per request."""

import torch
import triton
import triton.language as tl


@triton.jit
def _links_kernel(
    parents,  # [bs, W] int32
    children,  # [bs, W] int32
    siblings,  # [bs, W] int32
    width,
    BLOCK_W: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * width
    node = tl.arange(0, BLOCK_W)
    inside = node < width
    parent = tl.load(parents + row + node, mask=inside, other=-1)
    # Axis 0 is the node that asks, axis 1 the one that may be its child or sibling.
    child = tl.min(tl.where(parent[None, :] == node[:, None], node[None, :], width), 1)
    same = (parent[None, :] == parent[:, None]) & (parent >= 0)[:, None] & (node[None, :] > node[:, None])
    sibling = tl.min(tl.where(same, node[None, :], width), 1)
    tl.store(children + row + node, tl.where(child < width, child, -1), mask=inside)
    tl.store(siblings + row + node, tl.where(sibling < width, sibling, -1), mask=inside)


def links_from_parents(parents: torch.Tensor, children: torch.Tensor, siblings: torch.Tensor) -> None:
    """As ``naive.links_from_parents``, in one launch."""
    bs, width = parents.shape
    _links_kernel[(bs,)](parents, children, siblings, width, BLOCK_W=triton.next_power_of_2(width))
