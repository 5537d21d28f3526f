"""The plan of one forward pass: which queries attend together, and where their keys lie."""

from typing import NamedTuple

import torch

from sglang_dflash.cpu.masks import Queries, additive, sees_everything, visible
from sglang_dflash.errors import DFlashError


class Slots(NamedTuple):
    """Rows of a KV pool: a slice where they follow each other, so that they are read in place, else indices."""

    run: slice | None
    flat: torch.Tensor | None  # [n] int64


class Span:
    """Requests whose new tokens attend in one batched call, padded to one width.

    ``pad`` is None where the tokens need no padding and no reordering.
    """

    def __init__(self, queries: Queries, slots: torch.Tensor, folded: bool, pad: "Padding | None" = None):
        self.queries = queries
        self.bs = slots.shape[0]
        self._table = slots
        self.slots = _slots(slots)  # bs * L of them
        self._mapped: Slots | None = None
        self.folded = folded
        self.pad = pad
        self._biases: dict = {}

    def mapped(self, translate) -> Slots:
        """The slots as another pool numbers them; ``translate`` is the same in every call."""
        if self._mapped is None:
            self._mapped = _slots(translate(self._table.long()))
        return self._mapped

    def bias(
        self, causal: bool, window: int, group: int, dtype: torch.dtype, images: torch.Tensor | None = None
    ) -> torch.Tensor | None:
        """Additive mask [bs, 1, q or group * q, L], or None where every query sees every key.

        ``images`` [tokens, 2] are columns, both ends included, that a token of the batch sees besides; -1 for none.
        """
        key = (causal, window, group, dtype)
        if key not in self._biases:
            if images is None and sees_everything(self.queries, causal, window):
                self._biases[key] = None
            else:
                image = None if images is None else self._of_one_image(images)
                seen = visible(self.queries, causal, window, image)
                self._biases[key] = additive(seen, dtype, group if self.folded else 1)
        return self._biases[key]

    def _of_one_image(self, images: torch.Tensor) -> torch.Tensor:
        """[bs, q, L] bool: column j belongs to the same image as query i."""
        rows = images if self.pad is None else images.index_select(0, self.pad.pick)
        first, last = rows.view(self.bs, -1, 2).unsqueeze(2).unbind(-1)
        column = torch.arange(self.queries.columns)
        return (column >= first) & (column <= last) & (first >= 0)


def _slots(table: torch.Tensor) -> Slots:
    """[bs, L] int as a slice where possible."""
    flat = table.reshape(-1)
    run = _run(flat) if table.shape[0] == 1 else None
    return Slots(run, flat.long() if run is None else None)


def _run(slots: torch.Tensor) -> slice | None:
    """The slice that [n] slots are, or None; a table's row is a handful of such runs, often just one."""
    first = int(slots[0])
    end = first + slots.shape[0]
    if int(slots[-1]) != end - 1 or not torch.equal(slots, torch.arange(first, end, dtype=slots.dtype)):
        return None
    return slice(first, end)


class Padding(NamedTuple):
    """How a span's ragged tokens become [bs, q] and back."""

    pick: torch.Tensor  # [bs * q] int64: token of the batch for each padded place
    place: torch.Tensor  # [n] int64: padded place of each of the span's tokens
    tokens: torch.Tensor | None  # [n] int64: token of the batch; None when the span holds them all, in order


def uniform_span(table, rows, kv_lens, width: int, tree=None, positions=None) -> Span:
    """``width`` new tokens for each request: decode, or verify.

    table: [r, c] int slot table; rows, kv_lens: [bs] int, kv_lens includes the new tokens.
    """
    kv_lens = kv_lens.long()
    if rows.shape[0] == 1:
        columns, even = int(kv_lens), True
        slots = table[int(rows), :columns][None]
    else:
        columns = int(kv_lens.max())
        even = int(kv_lens.min()) == columns
        slots = table[:, :columns].index_select(0, rows)
    return Span(Queries(width, columns, kv_lens, kv_lens - width, even, tree, positions), slots, folded=True)


def verify_span(table, rows, seq_lens, positions, spec_info) -> Span:
    """The verify window: a chain, or the tree in ``spec_info.visibility``.

    Raises:
        DFlashError: a tree as a flat mask, which other algorithms of SGLang give.
    """
    width = int(spec_info.draft_token_num)
    tree = getattr(spec_info, "visibility", None)
    if tree is None and spec_info.custom_mask is not None:
        raise DFlashError(
            "--speculative-algorithm", "gives a flat mask, which the CPU platform does not read", "use DFLASH"
        )
    # A copy: some models count positions from 1, in place, before the first mask is built.
    nodes = None if tree is None else positions.view(-1, width).long().clone()
    return uniform_span(table, rows, seq_lens.long() + width, width, tree, nodes)


def extend_spans(table, rows, prefix_lens: list[int], new_lens: list[int]) -> list[Span]:
    """Ragged extend: requests of similar length share a span, so that padding at most doubles the work.

    prefix_lens, new_lens: host lists [bs]; a request without new tokens is left out.
    """
    buckets: dict[int, list[int]] = {}
    for i, length in enumerate(new_lens):
        if length:
            buckets.setdefault((length - 1).bit_length(), []).append(i)
    firsts = [0]
    for length in new_lens:
        firsts.append(firsts[-1] + length)
    whole = len(buckets) == 1
    return [_ragged_span(table, rows, prefix_lens, new_lens, firsts, members, whole) for members in buckets.values()]


def _ragged_span(table, rows, prefix_lens, new_lens, firsts, members, whole: bool) -> Span:
    lengths = torch.tensor([new_lens[i] for i in members])
    starts = torch.tensor([prefix_lens[i] for i in members])
    first = torch.tensor([firsts[i] for i in members])
    kv_lens = starts + lengths
    width, columns = int(lengths.max()), int(kv_lens.max())
    which = rows if len(members) == rows.shape[0] else rows[torch.tensor(members)]
    slots = table[:, :columns].index_select(0, which)
    even = int(kv_lens.min()) == columns
    queries = Queries(width, columns, kv_lens, starts, even)
    if whole and int(lengths.min()) == width:
        return Span(queries, slots, folded=False)
    step = torch.arange(width)
    real = (step < lengths[:, None]).view(-1)
    pick = (first[:, None] + torch.minimum(step, lengths[:, None] - 1)).view(-1)
    return Span(queries, slots, False, Padding(pick, real.nonzero().view(-1), None if whole else pick[real]))
