"""SGLang's TRT-LLM attention over our passes: its own kernels (sm_100), and XQA (sm_90)."""

import pytest
from checks import ROUNDS, check_round
from mistakes import check_direction_seen, check_seen, longer, mistakes, of_others

CARDS = pytest.mark.parametrize("card", ("trtllm_mha", "trtllm_mha-xqa"))


@CARDS
@ROUNDS
def test_round(launches, monkeypatch, card, page, window, sliding, graph, host_lens):
    check_round(launches(page, window, sliding), card, monkeypatch, graph, host_lens)


# In a graph this backend plans inside it, from the graph's own inputs.
@mistakes((longer, False), (of_others, False))
def test_mistakes_are_seen(launches, monkeypatch, mistake, graph):
    check_seen(launches(16), "trtllm_mha", monkeypatch, mistake, graph)


@CARDS
def test_directions_are_told_apart(launches, monkeypatch, card):
    check_direction_seen(launches(16), card, monkeypatch)
