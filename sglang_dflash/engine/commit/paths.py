"""Commit of targets whose only state is paged KV: accepted rows stand at the front of the verify window."""

from collections.abc import Callable

import torch

from sglang_dflash.host.kv_pools import kv_groups
from sglang_dflash.kernels import compact_kv
from sglang_dflash.types import Acceptance, Features, Proposal


class ChainCommit:
    """A chain's accepted nodes are the first columns of its window already: nothing moves."""

    def __call__(
        self, batch, proposal: Proposal, accepted: Acceptance, slots: torch.Tensor, hidden: torch.Tensor
    ) -> Features:
        """slots [bs, W], hidden [bs * W, K * hidden] -> the committed tokens' features."""
        return Features(hidden, proposal.positions.view(-1), slots.view(-1), accepted.commit_lens)


class TreeCommit:
    """Moves the accepted path's KV to the front of the window, and its features with it."""

    def __init__(self, runner):
        self._runner = runner
        self._compact = compact_kv.choose(torch.device(runner.device).type)
        self._tables: list[tuple[compact_kv.KVTable, Callable]] | None = None

    def __call__(
        self, batch, proposal: Proposal, accepted: Acceptance, slots: torch.Tensor, hidden: torch.Tensor
    ) -> Features:
        """slots [bs, W], hidden [bs * W, K * hidden] -> the committed path's features, root first."""
        if self._tables is None:
            # The pool exists only after the worker was built.
            groups = kv_groups(self._runner.token_to_kv_pool)
            self._tables = [(compact_kv.make_kv_table(group.buffers), group.slots) for group in groups]
        for table, slots_of in self._tables:
            self._compact(accepted.path, accepted.commit_lens, slots_of(slots), table)
        bs, depth = accepted.path.shape
        nodes = accepted.path.clamp(min=0)
        rows = hidden.view(bs, -1, hidden.shape[-1]).gather(1, nodes[..., None].expand(-1, -1, hidden.shape[-1]))
        return Features(
            rows.flatten(0, 1),
            proposal.positions.gather(1, nodes).view(-1),
            slots[:, :depth].reshape(-1),
            accepted.commit_lens,
        )
