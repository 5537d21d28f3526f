"""The selector's path as one launch: a program per request walks it, and scores only what follows its own choices."""

import torch
import triton
import triton.language as tl

from sglang_dflash.kernels.selected_path.naive import Transform


@triton.jit
def _selected_path_kernel(
    anchors,  # [bs], anchor_stride apart
    candidates,  # [bs, S, K]
    logits,  # [bs, S, K]
    weights,  # [bs, S, RANK]
    predecessors,  # [vocabulary, RANK]
    successors,  # [vocabulary, RANK]
    tokens,  # [bs, S + 1] int64
    anchor_stride,
    positions,
    multiplier,
    cap,
    K: tl.constexpr,
    RANK: tl.constexpr,
    HAS_CAP: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    request = tl.program_id(0).to(tl.int64)
    number = tl.arange(0, BLOCK_K)
    known = number < K
    entry = tl.arange(0, BLOCK_R)
    in_rank = entry < RANK
    token = tl.load(anchors + request * anchor_stride).to(tl.int64)
    out = tokens + request * (positions + 1)
    tl.store(out, token)
    for step in range(positions):
        place = request * positions + step
        candidate = tl.load(candidates + place * K + number, mask=known, other=0).to(tl.int64)
        score = tl.load(logits + place * K + number, mask=known, other=0.0).to(tl.float32) * multiplier
        if HAS_CAP:
            score = cap * (1.0 - 2.0 / (tl.exp(2.0 * score / cap) + 1.0))  # tanh
        weight = tl.load(weights + place * RANK + entry, mask=in_rank, other=0.0).to(tl.float32)
        before = tl.load(predecessors + token * RANK + entry, mask=in_rank, other=0.0).to(tl.float32) * weight
        rows = successors + candidate[:, None] * RANK + entry[None, :]
        after = tl.load(rows, mask=known[:, None] & in_rank[None, :], other=0.0).to(tl.float32)
        score += tl.sum(after * before[None, :], 1)
        score = tl.where(known, score, -float("inf"))
        best = tl.min(tl.where(score == tl.max(score, 0), number, BLOCK_K), 0)
        token = tl.sum(tl.where(number == best, candidate, 0), 0)
        tl.store(out + 1 + step, token)


def selected_path(
    anchors: torch.Tensor,
    candidates: torch.Tensor,
    logits: torch.Tensor,
    weights: torch.Tensor,
    predecessors: torch.Tensor,
    successors: torch.Tensor,
    transform: Transform,
) -> torch.Tensor:
    """As ``naive.selected_path``, in one launch; scores are summed in fp32."""
    bs, positions, k = candidates.shape
    rank = predecessors.shape[1]
    tokens = torch.empty(bs, positions + 1, dtype=torch.int64, device=candidates.device)
    _selected_path_kernel[(bs,)](
        anchors,
        candidates.contiguous(),
        logits.contiguous(),
        weights.contiguous(),
        predecessors,
        successors,
        tokens,
        anchors.stride(0),
        positions,
        transform.multiplier,
        transform.cap or 1.0,
        K=k,
        RANK=rank,
        HAS_CAP=transform.cap is not None,
        BLOCK_K=triton.next_power_of_2(k),
        BLOCK_R=triton.next_power_of_2(rank),
    )
    return tokens
