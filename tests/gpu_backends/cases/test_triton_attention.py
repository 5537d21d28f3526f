"""SGLang's Triton attention over our passes."""

from checks import ROUNDS, check_round
from mistakes import check_direction_seen, check_seen, longer, mistakes, narrower, of_others


@ROUNDS
def test_round(launches, monkeypatch, page, window, sliding, graph, host_lens):
    check_round(launches(page, window, sliding), "triton", monkeypatch, graph, host_lens)


@mistakes((longer, False), (of_others, False), (narrower, False), (longer, True), (of_others, True))
def test_mistakes_are_seen(launches, monkeypatch, mistake, graph):
    check_seen(launches(16), "triton", monkeypatch, mistake, graph)


def test_directions_are_told_apart(launches, monkeypatch):
    check_direction_seen(launches(16), "triton", monkeypatch)
