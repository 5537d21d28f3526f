"""Torch twins of SGLang's slot-table helpers, against Python lists."""

import random

import pytest
import torch

from sglang_dflash.cpu import slots


def table_of(rows: int, columns: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(rows * columns, generator=generator).view(rows, columns).int()


@pytest.mark.parametrize("bs", [1, 3, 17])
def test_write_row_spans(bs):
    rng = random.Random(bs)
    table = table_of(20, 40, bs)
    expected = table.clone()
    rows = rng.sample(range(20), bs)
    starts = [rng.randrange(30) for _ in rows]
    ends = [start + rng.choice([0, 1, 5, 10]) for start in starts]
    ends[0] = starts[0] + 3
    values = list(range(5000, 5000 + sum(e - s for s, e in zip(starts, ends, strict=True)) + 4))  # a tail is left over
    at = 0
    for row, start, end in zip(rows, starts, ends, strict=True):
        for column in range(start, end):
            expected[row, column] = values[at]
            at += 1
    slots.write_row_spans(
        torch.tensor(rows), table, torch.tensor(starts).int(), torch.tensor(ends), torch.tensor(values), bs
    )
    assert torch.equal(table, expected)


def test_write_row_spans_of_nothing():
    table = table_of(3, 4, 0)
    before = table.clone()
    lengths = torch.tensor([2, 1])
    slots.write_row_spans(torch.tensor([0, 2]), table, lengths, lengths, torch.empty(0, dtype=torch.int64), 2)
    assert torch.equal(table, before)


def test_write_extend_rows():
    class Pool:
        req_to_token = torch.zeros(5, 12, dtype=torch.int32)

    prefixes = [torch.tensor([7, 9, 8]), torch.empty(0, dtype=torch.int64), torch.tensor([3])]
    prefix, extend = torch.tensor([3, 0, 1]), torch.tensor([2, 4, 1])
    new = torch.arange(100, 107)
    rows = torch.tensor([4, 0, 2])
    slots.write_extend_rows(
        new, rows, rows, prefix, prefix, prefix + extend, prefix + extend, extend, extend, prefixes, Pool
    )
    assert Pool.req_to_token[4, :5].tolist() == [7, 9, 8, 100, 101]
    assert Pool.req_to_token[0, :4].tolist() == [102, 103, 104, 105]
    assert Pool.req_to_token[2, :2].tolist() == [3, 106]
    assert Pool.req_to_token.count_nonzero() == 11


def test_last_slots():
    table = table_of(6, 9, 1)
    rows, prefix = torch.tensor([5, 0, 3]), torch.tensor([4, 0, 9])
    got = slots.last_slots(table, rows, prefix)
    assert got.tolist() == [int(table[5, 3]), -1, int(table[3, 8])] and got.dtype == prefix.dtype


@pytest.mark.parametrize("width", [1, 5, 16])
def test_window_slots(width):
    table = table_of(6, 40, 2)
    rows, start = torch.tensor([5, 0, 3]), torch.tensor([4, 0, 20], dtype=torch.int32)
    got = slots.window_slots(
        req_pool_indices=rows,
        req_to_token=table,
        start_offset=start,
        end_offset=start + width,
        batch_size=3,
        draft_token_num=width,
        device="cpu",
    )
    expected = [int(table[r, s + i]) for r, s in zip(rows.tolist(), start.tolist(), strict=True) for i in range(width)]
    assert got.tolist() == expected and got.dtype == torch.int64


def test_pack_front_slots():
    window = torch.arange(15).view(3, 5) + 50
    packed = torch.full((15,), -7)
    slots.pack_front_slots(torch.tensor([2, 0, 5], dtype=torch.int32), window.flatten(), packed)
    assert packed.tolist() == [50, 51, 60, 61, 62, 63, 64] + [-7] * 8
