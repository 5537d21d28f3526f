"""SGLang's FlashInfer over our passes; the arguments of its compiled plan are compared, too."""

from backends import CARDS
from checks import INTENDED, ROUNDS, check_round
from mistakes import check_direction_seen, check_seen, longer, mistakes, of_others, without_block


@ROUNDS
def test_round(launches, monkeypatch, page, window, sliding, graph, host_lens):
    intended = INTENDED
    if window and graph:
        # Its captured wrappers are planned from the host's lengths, in which the built-in worker forgets the block.
        entries = [f"kv_indptr[{row}]" for row in (1, 2, 3, 4)] + [f"kv_lens[{row}]" for row in (0, 1, 2)]
        intended = INTENDED | {f"calls[{layer}].options.plan.{name}": "" for layer in (0, 1) for name in entries}
    check_round(launches(page, window, sliding), "flashinfer", monkeypatch, graph, host_lens, intended)


def test_the_host_plans_what_the_device_reads(launches, monkeypatch):
    """Under a window, in a graph: ours covers the block, the built-in worker's does not."""
    launch = launches(1, 32)
    with launch.on(CARDS["flashinfer"], monkeypatch, graph=True):
        ours, theirs = launch.rounds()
    for seen, covered in ((ours, True), (theirs, False)):
        # The fourth row is the graph's padding.
        read = [len(slots) for slots in seen.calls[0].slots[:3]]
        assert (seen.calls[0].options["plan"]["kv_lens"][:3] == read) == covered


@mistakes((longer, False), (of_others, False), (longer, True), (without_block, True))
def test_mistakes_are_seen(launches, monkeypatch, mistake, graph):
    check_seen(launches(16), "flashinfer", monkeypatch, mistake, graph)


def test_directions_are_told_apart(launches, monkeypatch):
    check_direction_seen(launches(16), "flashinfer", monkeypatch)
