"""The best tree as one launch: a program per request takes its nodes one by one from a frontier in registers."""

import torch
import triton
import triton.language as tl

from sglang_dflash.types import Continuation


@triton.jit
def _start(tokens, parents, depths, anchor, column, width, BLOCK_W: tl.constexpr):
    """Padding, then the root."""
    tl.store(tokens + column, tl.zeros([BLOCK_W], tl.int64), mask=column < width)
    tl.store(parents + column, tl.full([BLOCK_W], -1, tl.int32), mask=column < width)
    tl.store(depths + column, tl.zeros([BLOCK_W], tl.int64), mask=column < width)
    tl.debug_barrier()
    tl.store(tokens, anchor.to(tl.int64))


@triton.jit
def _store(tokens, parents, depths, token, parent, depth, takes):
    tl.store(tokens, token, mask=takes)
    tl.store(parents, parent, mask=takes)
    tl.store(depths, depth.to(tl.int64), mask=takes)


@triton.jit
def _rank_of(token, candidates, position, positions, K: tl.constexpr, BLOCK_K: tl.constexpr):
    """Which of the K candidates of ``position`` is ``token``; K where none is."""
    k = tl.arange(0, BLOCK_K)
    there = (k < K) & (position < positions)
    others = tl.load(candidates + position * K + k, mask=there, other=-1)
    return tl.min(tl.where(there & (others == token), k, K), 0)


@triton.jit
def _may_take(token, parent, drafted, children, given, column, K: tl.constexpr):
    """-> whether ``token`` becomes a node, and whether a candidate's siblings are still of interest.

    A parent may be full, and the context may have given it this child before the candidate came up.
    """
    full = tl.sum(tl.where(column == parent, children, 0), 0) >= K
    known = drafted & (tl.sum(tl.where(column == parent, given, 0), 0) == token)
    takes = (full == 0) & (known == 0)
    return takes, drafted & (takes | known)


@triton.jit
def _follows(at, at_depth, context, context_len, token, parent, drafted, takes):
    """-> whether the context goes on below this node, its own or a candidate it agrees with; whether it ends."""
    due = tl.load(context + at_depth, mask=at_depth < context_len, other=-1)
    follows = (drafted == 0) | ((parent == at) & (token == due) & (at_depth < context_len))
    return takes & follows, (drafted == 0) & (takes == 0)


@triton.jit
def _best_tree_kernel(
    anchors,  # [bs], anchor_stride apart
    candidates,  # [bs, S, K] int64
    log_probs,  # [bs, S, P, K] float64; P is K, or 1 where positions are independent
    order,  # [bs, S, P, K] int64, where HAS_ORDER
    context,  # [bs, C] int64, where HAS_CONTEXT
    steps,  # [bs, C] float64, where HAS_CONTEXT
    tokens,  # [bs, width] int64
    parents,  # [bs, width] int32
    depths,  # [bs, width] int64
    anchor_stride,
    positions,
    context_len,
    width,
    turns,  # nodes, and what is looked at without becoming one
    K: tl.constexpr,
    P: tl.constexpr,
    HAS_ORDER: tl.constexpr,
    HAS_CONTEXT: tl.constexpr,
    BLOCK: tl.constexpr,  # frontier places: two per node
    BLOCK_W: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    request = tl.program_id(0).to(tl.int64)
    place, column = tl.arange(0, BLOCK), tl.arange(0, BLOCK_W)
    own_tokens, own_parents, own_depths = tokens + request * width, parents + request * width, depths + request * width
    scores_of, order_of = log_probs + request * positions * P * K, order + request * positions * P * K
    candidates_of = candidates + request * positions * K
    context_of, steps_of = context + request * context_len, steps + request * context_len
    _start(own_tokens, own_parents, own_depths, tl.load(anchors + request * anchor_stride), column, width, BLOCK_W)
    # The frontier: of every node taken, its best continuation and its next best sibling.
    nothing = -float("inf")
    score = tl.where(place == 0, tl.load(scores_of), tl.full([BLOCK], nothing, tl.float64))
    above = tl.zeros([BLOCK], tl.float64)  # the parent's score
    parent, depth = tl.zeros([BLOCK], tl.int32), tl.full([BLOCK], 1, tl.int32)
    before, rank = parent, parent  # before: the predecessor's candidate
    # Where the context goes on from; of every node how many children it has, and that which only the context gave it.
    at, at_depth, at_score = tl.full([], 0, tl.int32), tl.full([], 0, tl.int32), tl.full([], 0.0, tl.float64)
    children, given = tl.zeros([BLOCK_W], tl.int32), tl.full([BLOCK_W], -1, tl.int64)
    node = tl.full([], 1, tl.int32)
    for _ in range(turns):
        best = tl.max(score, 0)
        top, drafted = best, tl.full([], 1, tl.int1)
        if HAS_CONTEXT:
            ahead = at_score + tl.load(steps_of + at_depth, mask=at_depth < context_len, other=nothing)
            top, drafted = tl.maximum(best, ahead), tl.where(ahead > best, 0, 1) == 1  # not a float to the interpreter
        if (node < width) & (top > nothing):
            taken = tl.min(tl.where(score == best, place, BLOCK), 0)
            here = (place == taken) & drafted
            parent_of, depth_of = tl.sum(tl.where(here, parent, 0), 0), tl.sum(tl.where(here, depth, 0), 0)
            before_of, rank_of = tl.sum(tl.where(here, before, 0), 0), tl.sum(tl.where(here, rank, 0), 0)
            above_of = tl.sum(tl.where(here, above, 0.0), 0)
            row = depth_of * P - P + (before_of if HAS_ORDER else 0)
            which = tl.load(order_of + row * K + rank_of, mask=drafted, other=0).to(tl.int32) if HAS_ORDER else rank_of
            token = tl.load(candidates_of + (depth_of - 1) * K + which, mask=drafted, other=0)
            takes, stays = tl.full([], 1, tl.int1), drafted
            if HAS_CONTEXT:
                parent_of, depth_of = tl.where(drafted, parent_of, at), tl.where(drafted, depth_of, at_depth + 1)
                token = tl.where(drafted, token, tl.load(context_of + at_depth, mask=drafted == 0, other=0))
                if HAS_ORDER:
                    found = _rank_of(token, candidates_of, depth_of - 1, positions, K, BLOCK_K)
                    which = tl.where(drafted, which, found)
                takes, stays = _may_take(token, parent_of, drafted, children, given, column, K)
                follows, ends = _follows(at, at_depth, context_of, context_len, token, parent_of, drafted, takes)
                at, at_score = tl.where(follows, node, at), tl.where(follows, top, at_score)
                at_depth = tl.where(ends, context_len, at_depth + follows.to(tl.int32))
                children += ((column == parent_of) & takes).to(tl.int32)
                given = tl.where((column == parent_of) & (takes & (drafted == 0)), token, given)
            _store(own_tokens + node, own_parents + node, own_depths + node, token, parent_of, depth_of, takes)
            below, beside = depth_of * P + (which if HAS_ORDER else 0), rank_of + 1
            goes_on = takes & (which < K) & (depth_of < positions)
            child = tl.load(scores_of + below * K, mask=goes_on, other=nothing) + top
            sibling = tl.load(scores_of + row * K + beside, mask=stays & (beside < K), other=nothing) + above_of
            is_child = (place == 2 * node - 1) & takes
            is_sibling = (place == tl.where(takes, 2 * node, taken)) & drafted
            score = tl.where(is_child, child, tl.where(is_sibling, sibling, tl.where(here, nothing, score)))
            above = tl.where(is_child, top, tl.where(is_sibling, above_of, above))
            parent = tl.where(is_child, node, tl.where(is_sibling, parent_of, parent))
            depth = tl.where(is_child, depth_of + 1, tl.where(is_sibling, depth_of, depth))
            before = tl.where(is_child, which, tl.where(is_sibling, before_of, before))
            rank = tl.where(is_child, 0, tl.where(is_sibling, beside, rank))
            node += takes.to(tl.int32)


def best_tree(
    anchors: torch.Tensor,
    candidates: torch.Tensor,
    log_probs: torch.Tensor,
    order: torch.Tensor | None,
    width: int,
    context: Continuation | None = None,
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
        tokens if context is None else context.tokens.contiguous(),
        log_probs if context is None else context.log_probs.contiguous(),
        tokens,
        parents,
        depths,
        anchors.stride(0),
        positions,
        0 if context is None else context.tokens.shape[1],
        width,
        # A candidate that the context has taken already, or whose parent is full: once for each node at most.
        width - 1 if context is None else 3 * width,
        K=k,
        P=1 if order is None else k,
        HAS_ORDER=order is not None,
        HAS_CONTEXT=context is not None,
        BLOCK=triton.next_power_of_2(2 * width),
        BLOCK_W=triton.next_power_of_2(width),
        BLOCK_K=triton.next_power_of_2(k),
        num_warps=1,
    )
    return tokens, parents, depths
