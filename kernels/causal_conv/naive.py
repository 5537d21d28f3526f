"""Torch twin of the causal convolution; what the CPU serves with.

``C`` channels, kernel of ``K`` taps, the newest input at the last tap. A state is the window of the last
``K - 1`` inputs, [C, K - 1], oldest first. Depthwise: weight [C, K], bias [C] or None. All arithmetic is float32.
"""

import torch
import torch.nn.functional as F


def conv_step(
    x: torch.Tensor,
    states: torch.Tensor,
    slots: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    silu: bool,
) -> torch.Tensor:
    """One new input per request: x [bs, C] -> [bs, C]; ``states[slots]`` [slots, C, K - 1] advance."""
    window = torch.cat((states.index_select(0, slots).float(), x.float().unsqueeze(2)), 2)
    states.index_copy_(0, slots, window[:, :, 1:].to(states.dtype))
    y = (window * weight).sum(2)
    return _finish(y, bias, silu, x.dtype)


def conv_ragged(
    x: torch.Tensor,
    bounds: list[int],
    states: torch.Tensor,
    slots: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    silu: bool,
) -> torch.Tensor:
    """Prefill: x [T, C], request r's tokens are rows ``bounds[r]:bounds[r + 1]`` -> [T, C]; states advance.

    Every request starts from its state in ``states`` [slots, C, K - 1], which is zero for a new one.
    """
    taps = weight.shape[1]
    before = states.index_select(0, slots).transpose(1, 2).float()
    inputs, offset = x.float(), 0
    pieces: list[torch.Tensor] = []
    ends: list[int] = []
    for request, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        pieces += (before[request], inputs[start:end])
        offset += taps - 1 + end - start
        ends.append(offset)
    rows = torch.cat(pieces)
    after = torch.stack([rows[end - taps + 1 : end] for end in ends])
    states.index_copy_(0, slots, after.transpose(1, 2).to(states.dtype))
    y = _slide(rows, weight)
    if len(ends) > 1:
        # Outputs of a request follow each other; those that straddle two requests are dropped.
        lens = [end - start for start, end in zip(bounds[:-1], bounds[1:], strict=True)]
        y = torch.cat([y[end - taps + 1 - n : end - taps + 1] for end, n in zip(ends, lens, strict=True)])
    return _finish(y, bias, silu, x.dtype)


def node_rows(parents: torch.Tensor | None, bs: int, width: int, taps: int) -> torch.Tensor | None:
    """[bs, W, K] int64: which row of [state; nodes] each tap of each node reads; None for a chain.

    Rows 0 to K - 2 are the state, oldest first, row K - 1 + i is node i. A path longer than K - 1 nodes
    leaves the state behind. parents [bs, W] int32 as in ``Proposal``; the root, and padding, follow the state.
    """
    if parents is None:
        return None
    last = taps - 2
    # The row before every row: along the state, then from a node to its parent.
    state = torch.arange(-1, last, device=parents.device).clamp_(min=0).expand(bs, -1)
    nodes = torch.where(parents < 0, last, parents.long() + taps - 1)
    previous = torch.cat((state, nodes), 1)
    rows = [torch.arange(taps - 1, taps - 1 + width, device=parents.device).expand(bs, -1)]
    for _ in range(taps - 1):
        rows.insert(0, previous.gather(1, rows[0]))
    return torch.stack(rows, 2)


def conv_nodes(
    x: torch.Tensor,
    rows: torch.Tensor | None,
    states: torch.Tensor,
    slots: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    silu: bool,
    windows: torch.Tensor,
) -> torch.Tensor:
    """The nodes of a proposal, each after its parent: x [bs, W, C] -> [bs, W, C].

    ``states`` [slots, C, K - 1] stay; ``windows`` [bs, W, C, K - 1] get the state after each node.
    rows: ``node_rows``, None for a chain.
    """
    bs, width, channels = x.shape
    taps = weight.shape[1]
    line = torch.cat((states.index_select(0, slots).transpose(1, 2).float(), x.float()), 1)
    if rows is None:
        windows.copy_(line[:, 1:].unfold(1, taps - 1, 1))
        y = line[:, :width] * weight[:, 0]
        for tap in range(1, taps):
            y = y + line[:, tap : tap + width] * weight[:, tap]
    else:
        picked = line.gather(1, rows.view(bs, -1, 1).expand(-1, -1, channels)).view(bs, width, taps, channels)
        windows.copy_(picked[:, :, 1:].transpose(2, 3))
        y = (picked * weight.t()).sum(2)
    return _finish(y, bias, silu, x.dtype)


def _slide(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """rows [N, C] -> [N - K + 1, C]."""
    taps = weight.shape[1]
    count = rows.shape[0] - taps + 1
    y = rows[:count] * weight[:, 0]
    for tap in range(1, taps):
        y.addcmul_(rows[tap : tap + count], weight[:, tap])
    return y


def _finish(y: torch.Tensor, bias: torch.Tensor | None, silu: bool, dtype: torch.dtype) -> torch.Tensor:
    if bias is not None:
        y = y + bias
    return (F.silu(y) if silu else y).to(dtype)
