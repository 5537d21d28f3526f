"""The best tree as one launch: a program per request takes its nodes one by one from a frontier in registers."""

import torch
import triton
import triton.language as tl


@triton.jit
def _best_tree_kernel(
    anchors,  # [bs], anchor_stride apart
    candidates,  # [bs, S, K] int64
    log_probs,  # [bs, S, P, K] float64; P is K, or 1 where positions are independent
    order,  # [bs, S, P, K] int64, where HAS_ORDER
    tokens,  # [bs, width] int64
    parents,  # [bs, width] int32
    depths,  # [bs, width] int64
    anchor_stride,
    positions,
    width,
    K: tl.constexpr,
    P: tl.constexpr,
    HAS_ORDER: tl.constexpr,
    BLOCK: tl.constexpr,  # frontier places: two per node
    BLOCK_W: tl.constexpr,
):
    request = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    own_tokens, own_parents, own_depths = tokens + request * width, parents + request * width, depths + request * width
    scores_of = log_probs + request * positions * P * K
    order_of = order + request * positions * P * K
    candidates_of = candidates + request * positions * K
    # Padding, then the root.
    column = tl.arange(0, BLOCK_W)
    tl.store(own_tokens + column, tl.zeros([BLOCK_W], tl.int64), mask=column < width)
    tl.store(own_parents + column, tl.full([BLOCK_W], -1, tl.int32), mask=column < width)
    tl.store(own_depths + column, tl.zeros([BLOCK_W], tl.int64), mask=column < width)
    tl.debug_barrier()
    tl.store(own_tokens, tl.load(anchors + request * anchor_stride).to(tl.int64))
    # The frontier: of every node taken, its best continuation and its next best sibling.
    nothing = -float("inf")
    score = tl.full([BLOCK], nothing, tl.float64)
    score = tl.where(place == 0, tl.load(scores_of), score)
    above = tl.zeros([BLOCK], tl.float64)  # the parent's score
    parent = tl.zeros([BLOCK], tl.int32)
    depth = tl.full([BLOCK], 1, tl.int32)
    before = tl.zeros([BLOCK], tl.int32)  # the predecessor's candidate
    rank = tl.zeros([BLOCK], tl.int32)
    for node in range(1, width):
        best = tl.max(score, 0)
        taken = tl.min(tl.where(score == best, place, BLOCK), 0)
        if best > nothing:
            here = place == taken
            parent_of = tl.sum(tl.where(here, parent, 0), 0)
            depth_of = tl.sum(tl.where(here, depth, 0), 0)
            before_of = tl.sum(tl.where(here, before, 0), 0)
            rank_of = tl.sum(tl.where(here, rank, 0), 0)
            above_of = tl.sum(tl.where(here, above, 0.0), 0)
            row = (depth_of - 1) * P + (before_of if HAS_ORDER else 0)
            which = tl.load(order_of + row * K + rank_of).to(tl.int32) if HAS_ORDER else rank_of
            tl.store(own_tokens + node, tl.load(candidates_of + (depth_of - 1) * K + which))
            tl.store(own_parents + node, parent_of)
            tl.store(own_depths + node, depth_of.to(tl.int64))
            child_row = depth_of * P + (which if HAS_ORDER else 0)
            child = tl.load(scores_of + child_row * K, mask=depth_of < positions, other=nothing) + best
            sibling = tl.load(scores_of + row * K + rank_of + 1, mask=rank_of + 1 < K, other=nothing) + above_of
            is_child, is_sibling = place == 2 * node - 1, place == 2 * node
            score = tl.where(here, nothing, score)
            score = tl.where(is_child, child, tl.where(is_sibling, sibling, score))
            above = tl.where(is_child, best, tl.where(is_sibling, above_of, above))
            parent = tl.where(is_child, node, tl.where(is_sibling, parent_of, parent))
            depth = tl.where(is_child, depth_of + 1, tl.where(is_sibling, depth_of, depth))
            before = tl.where(is_child, which, tl.where(is_sibling, before_of, before))
            rank = tl.where(is_child, 0, tl.where(is_sibling, rank_of + 1, rank))


def best_tree(
    anchors: torch.Tensor,
    candidates: torch.Tensor,
    log_probs: torch.Tensor,
    order: torch.Tensor | None,
    width: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As ``naive.best_tree``, in one launch."""
    bs, positions, k = candidates.shape
    device = candidates.device
    tokens, depths = torch.empty(2, bs, width, dtype=torch.int64, device=device)
    parents = torch.empty(bs, width, dtype=torch.int32, device=device)
    log_probs = log_probs.contiguous()
    _best_tree_kernel[(bs,)](
        anchors,
        candidates.contiguous(),
        log_probs,
        log_probs if order is None else order.contiguous(),
        tokens,
        parents,
        depths,
        anchors.stride(0),
        positions,
        width,
        K=k,
        P=1 if order is None else k,
        HAS_ORDER=order is not None,
        BLOCK=triton.next_power_of_2(2 * width),
        BLOCK_W=triton.next_power_of_2(width),
        num_warps=1,
    )
    return tokens, parents, depths
