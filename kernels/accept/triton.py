"""The accept rule as one launch: a program per request."""

import torch
import triton
import triton.language as tl

from sglang_dflash.types import Acceptance


@triton.jit
def _store_row(request, commit, bonus_token, prefix_lens, commit_lens, bonus, new_prefix_lens):
    tl.store(commit_lens + request, commit)
    tl.store(bonus + request, bonus_token)
    tl.store(new_prefix_lens + request, tl.load(prefix_lens + request) + commit)


@triton.jit
def _accept_chain_kernel(
    tokens,  # [bs, W] int64
    target_tokens,  # [bs, W] int64
    prefix_lens,  # [bs] int64
    path,  # [bs, W] int64
    commit_lens,  # [bs] int32
    bonus,  # [bs] int64
    emitted,  # [bs, W] int64
    new_prefix_lens,  # [bs] int64
    width,
    BLOCK: tl.constexpr,
):
    request = tl.program_id(0).to(tl.int64)
    node = tl.arange(0, BLOCK)
    inside = node < width
    row = request * width
    token = tl.load(tokens + row + node, mask=inside, other=0)
    target = tl.load(target_tokens + row + node, mask=inside, other=0)
    is_draft = inside & (node > 0)
    wanted = tl.load(target_tokens + row + node - 1, mask=is_draft, other=0)
    # The first wrong draft is where the path ends; without one it ends after the last node.
    commit = tl.min(tl.where(is_draft & (token != wanted), node, width), 0)
    kept = node < commit
    tl.store(path + row + node, tl.where(kept, node, -1).to(tl.int64), mask=inside)
    tl.store(emitted + row + node, tl.where(kept, target, 0), mask=inside)
    bonus_token = tl.sum(tl.where(node == commit - 1, target, 0), 0)
    _store_row(request, commit, bonus_token, prefix_lens, commit_lens, bonus, new_prefix_lens)


@triton.jit
def _accept_tree_kernel(
    tokens,  # [bs, W] int64
    target_tokens,  # [bs, W] int64
    parents,  # [bs, W] int32
    prefix_lens,  # [bs] int64
    path,  # [bs, D] int64
    commit_lens,  # [bs] int32
    bonus,  # [bs] int64
    emitted,  # [bs, D] int64
    new_prefix_lens,  # [bs] int64
    width,
    path_len,
    BLOCK_W: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    request = tl.program_id(0).to(tl.int64)
    node = tl.arange(0, BLOCK_W)
    step = tl.arange(0, BLOCK_D)
    inside = node < width
    row = request * width
    token = tl.load(tokens + row + node, mask=inside, other=0)
    # Neither the root, nor padding, nor a lane outside is anyone's child.
    parent = tl.load(parents + row + node, mask=inside, other=-1)
    path_row = tl.full((BLOCK_D,), -1, tl.int64)
    emitted_row = tl.zeros((BLOCK_D,), tl.int64)
    bonus_token = tl.load(target_tokens + row)
    current = tl.full((), 0, tl.int32)
    commit = tl.full((), 0, tl.int32)
    while current < width:
        bonus_token = tl.load(target_tokens + row + current)
        path_row = tl.where(step == commit, current.to(tl.int64), path_row)
        emitted_row = tl.where(step == commit, bonus_token, emitted_row)
        commit += 1
        current = tl.min(tl.where((parent == current) & (token == bonus_token), node, width), 0)
    out = request * path_len + step
    tl.store(path + out, path_row, mask=step < path_len)
    tl.store(emitted + out, emitted_row, mask=step < path_len)
    _store_row(request, commit, bonus_token, prefix_lens, commit_lens, bonus, new_prefix_lens)


def accept(
    tokens: torch.Tensor,
    target_tokens: torch.Tensor,
    parents: torch.Tensor | None,
    prefix_lens: torch.Tensor,
    out: Acceptance,
) -> None:
    """As ``naive.accept``, in one launch."""
    bs, width = tokens.shape
    results = (out.path, out.commit_lens, out.bonus, out.emitted, out.new_prefix_lens)
    block = triton.next_power_of_2(width)
    if parents is None:
        _accept_chain_kernel[(bs,)](tokens, target_tokens, prefix_lens, *results, width, BLOCK=block, num_warps=1)
        return
    path_len = out.path.shape[1]
    _accept_tree_kernel[(bs,)](
        tokens,
        target_tokens,
        parents,
        prefix_lens,
        *results,
        width,
        path_len,
        BLOCK_W=block,
        BLOCK_D=triton.next_power_of_2(path_len),
        num_warps=1,
    )
