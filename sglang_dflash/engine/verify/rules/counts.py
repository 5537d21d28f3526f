"""How often each request has emitted each token, kept on the device, where the newest emissions are known first."""

import weakref

import torch

from sglang_dflash.types import Acceptance


def on_device(values: list, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """``values`` of the host as a tensor; for a GPU through pinned memory, so that nothing queued is waited for."""
    return torch.tensor(values, dtype=dtype, pin_memory=device.type == "cuda").to(device, non_blocking=True)


class EmittedCounts:
    """A row of counts for every request that is followed; it is given back when SGLang drops the request.

    The table grows by doubling. Row 0 is shared by all that are not followed, and holds nothing of meaning.
    """

    def __init__(self, vocab_size: int, device: torch.device):
        self._vocab_size, self._device = vocab_size, device
        self._table = torch.zeros(1, vocab_size, device=device)
        self._rows: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
        self._free: list[int] = []

    def row_of(self, req) -> int:
        """The row of ``req``, which is followed from now on; a new row counts what the host knows it has emitted."""
        row = self._rows.get(req)
        if row is None:
            if not self._free:
                self._grow()
            row = self._rows[req] = self._free.pop()
            weakref.finalize(req, self._free.append, row)
            self.restart(req)
        return row

    def restart(self, req) -> None:
        """Count what the host knows ``req`` to have emitted: all of it, when it is (again) prefilled."""
        counts = self._table[self._rows[req]].zero_()
        if len(req.output_ids):
            tokens = on_device(list(req.output_ids), torch.int64, self._device)
            counts.index_put_((tokens,), torch.ones_like(tokens, dtype=counts.dtype), accumulate=True)

    def of(self, rows: torch.Tensor) -> torch.Tensor:
        """Counts [bs, V] float32 of ``rows`` [bs] int64, a copy."""
        return self._table[rows]

    def add(self, rows: torch.Tensor, tokens: torch.Tensor) -> None:
        """One emission of ``tokens`` [bs] each."""
        self._put(rows, tokens, torch.ones_like(tokens, dtype=self._table.dtype))

    def add_accepted(self, rows: torch.Tensor, accepted: Acceptance) -> None:
        """What a round emitted."""
        depths = torch.arange(accepted.emitted.shape[1], device=self._device)
        emitted = (depths < accepted.commit_lens.unsqueeze(1)).to(self._table.dtype)
        self._put(rows.unsqueeze(1).expand_as(accepted.emitted), accepted.emitted, emitted)

    def _put(self, rows: torch.Tensor, tokens: torch.Tensor, counts: torch.Tensor) -> None:
        self._table.index_put_((rows, tokens), counts, accumulate=True)

    def _grow(self) -> None:
        size, wanted = self._table.shape[0], max(8, 2 * self._table.shape[0])
        self._table = torch.cat((self._table, self._table.new_zeros(wanted - size, self._vocab_size)))
        self._free += range(wanted - 1, size - 1, -1)
