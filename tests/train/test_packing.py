"""Packing loses nothing and the mask keeps documents apart."""

import itertools

import torch

from sglang_dflash.tools.train.packing import Packer, collate, document_bias, pack_rows


def documents(lengths):
    return [([10 + i] * n, [False] + [True] * (n - 1)) for i, n in enumerate(lengths)]


def test_rows_hold_every_document_once():
    docs = documents([5, 9, 3, 8, 2, 7, 6, 1])
    rows, left = pack_rows(docs, 3, 10)
    placed = sorted(d[0][0] for row in rows for d in row)
    assert sorted(placed + [d[0][0] for d in left]) == sorted(d[0][0] for d in docs)
    assert all(sum(len(d[0]) for d in row) <= 10 for row in rows)


def test_mask_against_a_double_loop():
    batch = collate([documents([3, 4]), documents([5])], 8, pad=0)
    bias = document_bias(batch.doc)
    for r, i, j in itertools.product(range(2), range(8), range(8)):
        allowed = j <= i and batch.doc[r, i] == batch.doc[r, j]
        assert (bias[r, 0, i, j] == 0) == bool(allowed)


def test_positions_restart_and_padding_is_marked():
    batch = collate([documents([3, 4])], 9, pad=7)
    assert batch.positions[0].tolist() == [0, 1, 2, 0, 1, 2, 3, 0, 0]
    assert batch.doc[0].tolist() == [0, 0, 0, 1, 1, 1, 1, -1, -1]
    assert batch.ids[0, 7:].tolist() == [7, 7]
    assert not batch.answer[0, 0] and batch.answer[0, 1] and not batch.answer[0, 7]


def test_packer_sorts_by_length_and_skips_what_is_too_long():
    lengths = itertools.cycle([4, 30, 6, 500, 5])
    source = (doc for n in lengths for doc in documents([n]))
    packer = Packer(source, 64, (8, 32), pad=0)
    widths = {tuple(packer.next_batch().ids.shape) for _ in range(20)}
    assert widths == {(8, 8), (2, 32)}


def test_a_document_sees_the_same_alone_and_packed():
    from conftest import scramble, small_shape

    from sglang_dflash.tools.train.model import TinyQwen3

    model = TinyQwen3(small_shape(50))
    scramble(model)
    first, second = documents([4, 6])
    packed = collate([[first, second]], 12, pad=0)
    alone = collate([[second]], 6, pad=0)
    with torch.no_grad():
        together = model(packed.ids, packed.positions, document_bias(packed.doc))[0, 4:10]
        single = model(alone.ids, alone.positions, document_bias(alone.doc))[0]
    torch.testing.assert_close(together, single, atol=1e-5, rtol=1e-5)
