"""A block of the draft and a verify pass of another width, on every backend: right tokens, from what each reads."""

import pytest
from backends import CARDS
from checks import check_bounds
from rounds import kept


@pytest.mark.parametrize(
    ("width", "block", "sliding", "graph"),
    [(8, 16, False, False), (8, 16, False, True), (5, 12, True, False), (5, 12, True, True), (1, 16, False, True)],
)
@pytest.mark.parametrize("card", CARDS)
def test_round(launches, monkeypatch, card, width, block, sliding, graph):
    launch = launches(16, 0, sliding, width, block)
    with launch.on(CARDS[card], monkeypatch, graph):
        seen = launch.round("ours")
    assert kept(seen.result) == launch.reference["ours"]
    assert seen.result.can_run_cuda_graph == graph
    # A width of one is plain decoding: nothing is drafted.
    drafts = width > 1
    assert [one["spec"]["draft_token_num"] for one in seen.passes] == [block] * drafts + [width]
    rows = 4 if graph else 3
    tokens = [block * rows] * 2 * drafts + [width * rows] * 8
    assert [call.queries[-1][1] for call in seen.calls] == tokens
    check_bounds(launch, seen)
