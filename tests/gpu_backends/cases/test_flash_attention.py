"""SGLang's FlashAttention 3 and 4 over our passes."""

import pytest
from checks import ROUNDS, check_round
from mistakes import check_direction_seen, check_seen, longer, mistakes, of_others

CARDS = pytest.mark.parametrize("card", ("fa3", "fa4"))


@CARDS
@ROUNDS
def test_round(launches, monkeypatch, card, page, window, sliding, graph, host_lens):
    check_round(launches(page, window, sliding), card, monkeypatch, graph, host_lens)


@mistakes((longer, False), (of_others, False), (longer, True), (of_others, True))
def test_mistakes_are_seen(launches, monkeypatch, mistake, graph):
    check_seen(launches(16), "fa3", monkeypatch, mistake, graph)


@CARDS
def test_directions_are_told_apart(launches, monkeypatch, card):
    check_direction_seen(launches(16), card, monkeypatch)
