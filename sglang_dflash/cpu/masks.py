"""Which key a query may see, batched; every mask is built once per forward pass and shared by its layers."""

from typing import NamedTuple

import torch


class Queries(NamedTuple):
    """The new tokens of a batch, padded to one width; they are the last tokens of their requests.

    ``positions`` (rope positions of the new tokens) differ from the columns only for a draft tree.
    """

    width: int  # q
    columns: int  # L, the longest kv_len
    kv_lens: torch.Tensor  # [bs] int64, new tokens included
    starts: torch.Tensor  # [bs] int64, column of the first new token
    even: bool  # every kv_len equals ``columns``
    tree: torch.Tensor | None = None  # [bs, q, q] bool: node i sees node j; None is the causal chain
    positions: torch.Tensor | None = None  # [bs, q] int64, given with a tree


def sees_everything(queries: Queries, causal: bool, window: int) -> bool:
    """True when no mask is needed: every query sees every column."""
    if not queries.even or (0 <= window < queries.columns - 1):
        return False
    return not causal or (queries.width == 1 and queries.tree is None)


def visible(queries: Queries, causal: bool, window: int, image: torch.Tensor | None = None) -> torch.Tensor:
    """[bs, q, L] bool: may query i see column j?

    Not causal: every column of the request. Causal: columns up to the query's own, or with a tree the whole
    context and the nodes that ``tree`` names, and those of ``image`` [bs, q, L]. ``window`` >= 0: only keys at
    most ``window`` positions back.
    """
    column = torch.arange(queries.columns)
    starts = queries.starts[:, None, None]
    step = torch.arange(queries.width)[None, :, None]
    seen = column < queries.kv_lens[:, None, None]
    if causal and queries.tree is None:
        seen = column <= starts + step
    elif causal and queries.tree is not None:
        seen = (column < starts) | (seen & _spread(queries.tree, queries.starts, queries.columns))
    if image is not None:
        seen = seen | image
    if window >= 0:
        here, there = starts + step, column
        if queries.positions is not None:
            here = queries.positions[:, :, None]
            spread = _spread(queries.positions[:, None, :], queries.starts, queries.columns)
            there = torch.where(column < starts, column, spread)
        seen = seen & (there >= here - window)
    return seen.expand(-1, queries.width, -1)


def _spread(values: torch.Tensor, starts: torch.Tensor, columns: int) -> torch.Tensor:
    """[bs, r, q] per new token -> [bs, r, L] by column; columns outside the new tokens repeat an edge."""
    node = (torch.arange(columns) - starts[:, None]).clamp(0, values.shape[2] - 1)
    return values.gather(2, node[:, None, :].expand(-1, values.shape[1], -1))


def additive(seen: torch.Tensor, dtype: torch.dtype, group: int) -> torch.Tensor:
    """[bs, q, L] bool -> [bs, 1, group * q, L] of 0 and -inf, repeated for the query heads folded into q."""
    bs, width, columns = seen.shape
    bias = torch.zeros(bs, 1, width, columns, dtype=dtype).masked_fill_(~seen[:, None], float("-inf"))
    if group == 1 or width == 1:
        return bias
    return bias.repeat(1, 1, group, 1)
