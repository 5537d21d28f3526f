"""Torch twin of the accept rule; what the CPU serves with."""

import functools

import torch

from sglang_dflash.kernels.prepare_block.naive import block_offsets
from sglang_dflash.types import Acceptance


def accept(
    tokens: torch.Tensor,
    target_tokens: torch.Tensor,
    parents: torch.Tensor | None,
    prefix_lens: torch.Tensor,
    out: Acceptance,
) -> None:
    """Walk from the root as long as a child carries the target's own token; fill ``out``.

    tokens [bs, W] int64: the proposal, node 0 the anchor. target_tokens [bs, W] int64: the
    target's choice after each node, its argmax or one sample of its distribution; the drafts being
    point masses, keeping a node iff it equals that sample leaves the distribution exactly the
    target's (Leviathan et al., arXiv 2211.17192, with a point-mass draft). parents [bs, W] int32
    as in ``Proposal``, None for a chain. prefix_lens [bs] int64. Of siblings with equal tokens the
    first counts. ``out.path`` has D columns: W for a chain, the deepest node + 1 for a tree.
    """
    if parents is None:
        _accept_chain(tokens, target_tokens, prefix_lens, out)
    else:
        _accept_tree(tokens, target_tokens, parents, prefix_lens, out)


def _accept_chain(tokens, target_tokens, prefix_lens, out: Acceptance) -> None:
    correct = (tokens[:, 1:] == target_tokens[:, :-1]).cumprod(1).sum(1, keepdim=True)
    _store_lengths(correct.squeeze(1), prefix_lens, out)
    steps = block_offsets(tokens.shape[1], tokens.device)
    kept = steps <= correct
    torch.gather(target_tokens, 1, correct, out=out.bonus.unsqueeze(1))
    # An accepted draft token equals the target's token one step earlier, so the row is the target's.
    torch.mul(target_tokens, kept, out=out.emitted)
    torch.where(kept, steps, _no_node(tokens.device), out=out.path)


def _accept_tree(tokens, target_tokens, parents, prefix_lens, out: Acceptance) -> None:
    width, path_len = tokens.shape[1], out.path.shape[1]
    nodes = block_offsets(width, tokens.device)
    ancestor = parents.long().clamp_(min=0)
    accepted = (tokens == target_tokens.gather(1, ancestor)) & (parents >= 0)
    accepted &= ~_has_earlier_twin(tokens, parents, nodes)
    accepted[:, 0] = True
    # Pointer jumping: after k turns a node has checked its 2**k - 1 nearest ancestors.
    for _ in range((path_len - 1).bit_length()):
        accepted &= accepted.gather(1, ancestor)
        ancestor = ancestor.gather(1, ancestor)
    commit = accepted.sum(1, keepdim=True)
    _store_lengths(commit.squeeze(1) - 1, prefix_lens, out)
    # The accepted nodes are one path and ascend along it, so sorting them to the front orders them.
    order = torch.where(accepted, nodes, width).sort(1).values[:, :path_len]
    kept = order < width
    torch.where(kept, order, _no_node(tokens.device), out=out.path)
    torch.mul(target_tokens.gather(1, order.clamp_(max=width - 1)), kept, out=out.emitted)
    torch.gather(out.emitted, 1, commit - 1, out=out.bonus.unsqueeze(1))


def _has_earlier_twin(tokens, parents, nodes) -> torch.Tensor:
    """[bs, W] bool: an earlier node has the same parent and the same token."""
    same = (tokens.unsqueeze(2) == tokens.unsqueeze(1)) & (parents.unsqueeze(2) == parents.unsqueeze(1))
    return (same & (nodes < nodes.unsqueeze(1))).any(2)


def _store_lengths(correct: torch.Tensor, prefix_lens: torch.Tensor, out: Acceptance) -> None:
    torch.add(correct, 1, out=out.commit_lens)
    torch.add(prefix_lens, out.commit_lens, out=out.new_prefix_lens)


@functools.cache
def _no_node(device: torch.device) -> torch.Tensor:
    """The padding of ``Acceptance.path``, a scalar tensor made once per device."""
    return torch.tensor(-1, dtype=torch.int64, device=device)
