"""The state after every node of a proposal, for recurrences that decay a state and add an outer product to it."""

import torch

LARGE = 1 << 15  # elements of a request's state, from which on memory counts for more than calls


def write_node_states(
    node_states: torch.Tensor,
    state: torch.Tensor,
    writes: torch.Tensor,
    directions: torch.Tensor,
    decay: torch.Tensor,
    between: torch.Tensor,
    total: torch.Tensor,
    parents: torch.Tensor | None,
) -> None:
    """node_states [bs, W, H, V, K]: a node's is its parent's times its decay, plus its write times its direction.

    state [bs, H, V, K] float32 before the root; writes [bs, H, W, V], directions [bs, H, W, K]; decay [bs, W, H] of
    each node alone; between [bs, H, W, W] and total [bs, H, W]: decay from an ancestor's write, and log decay from
    ``state``, along the path; parents [bs, W] int32, None for a chain. Padding's states are undefined.
    """
    exact = node_states if node_states.dtype == torch.float32 else torch.empty_like(node_states, dtype=torch.float32)
    if exact[0, 0].numel() > LARGE:
        _in_turn(exact, state, writes, directions, decay, parents)
    else:
        _at_once(exact, state, writes, directions, between, total)
    if exact is not node_states:
        node_states.copy_(exact)


def _at_once(after, state, writes, directions, between, total) -> None:
    """State i is the decayed start and its path's decayed writes: a product per node and head, few calls in all."""
    shares = (between.unsqueeze(3) * writes.transpose(2, 3).unsqueeze(2)).transpose(1, 2)
    torch.matmul(shares, directions.unsqueeze(1), out=after)
    after.addcmul_(state.unsqueeze(1), total.exp().transpose(1, 2)[..., None, None])


def _in_turn(after, state, writes, directions, decay, parents) -> None:
    """State i from its parent's: less to compute, and in cache."""
    requests = torch.arange(after.shape[0], device=after.device)
    for node in range(after.shape[1]):
        if node == 0:
            before = state
        elif parents is None:
            before = after[:, node - 1]
        else:
            before = after[requests, parents[:, node].clamp(min=0)]
        torch.mul(before, decay[:, node, :, None, None], out=after[:, node])
        after[:, node].addcmul_(writes[:, :, node, :, None], directions[:, :, node, None])
