"""Torch twin of the windowed rows; what the CPU serves with."""

from typing import NamedTuple

import torch


class Window(NamedTuple):
    """What a draft sees, in tokens."""

    size: int  # the last tokens of the context
    page: int  # of the cache: a window begins where one does, so that it may be up to page - 1 tokens wider
    block: int  # tokens of the block behind it

    @property
    def widest(self) -> int:
        """Columns that a row can need."""
        return self.size + self.page - 1 + self.block


def window_rows(
    rows: torch.Tensor,
    requests: torch.Tensor,
    prefix_lens: torch.Tensor,
    window: Window,
    out: torch.Tensor,
    visible: torch.Tensor,
) -> None:
    """Write to ``out`` [n, columns] int32, row by row of ``requests`` [bs] int64, the slots that a draft sees.

    rows [n, columns] int32: slots of every position, ``prefix_lens`` [bs] int64 of context and the block behind
    them. They go to the front of a request's row of ``out``, whose other columns are left as they are or hold
    anything; ``visible`` [bs] int64 takes how many are context.
    """
    start = (prefix_lens - window.size).clamp_(min=0)
    torch.sub(prefix_lens, start.sub_(start % window.page), out=visible)
    columns = torch.arange(int(visible.max()) + window.block, device=rows.device)
    wanted = (start.unsqueeze(1) + columns).clamp_(max=rows.shape[1] - 1)
    request = requests.unsqueeze(1)
    out[request, columns] = rows[request, wanted]
