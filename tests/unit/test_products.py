"""The command that measures dense projections."""

import torch

from sglang_dflash.tools.bench import products


def test_a_row_for_each_shape(monkeypatch, capsys):
    monkeypatch.setattr(products, "SHAPES", ((8, 16), (32, 8)))
    monkeypatch.setattr(products, "ROWS", (1, 3))
    monkeypatch.setattr(products, "TURN_SECONDS", 0.0)
    products.run_products(threads=torch.get_num_threads())
    out = capsys.readouterr().out
    assert "torch us" in out and out.count("x\n") == 4


def test_turns_alternate():
    calls = []
    assert len(products.fastest([lambda: calls.append("a"), lambda: calls.append("b")])) == 2
    assert {"a", "b"} == set(calls)
