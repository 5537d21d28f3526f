"""What holds of a round on every backend; the module of each backend calls it."""

import pytest
from backends import CARDS
from rounds import as_ints, kept, unlike

# (page, window of the draft's context, sliding layers, graph, whether the host knows exact lengths)
ROUNDS = pytest.mark.parametrize(
    ("page", "window", "sliding", "graph", "host_lens"),
    [
        (1, 0, False, False, True),
        (16, 0, False, False, False),
        (64, 0, False, False, True),
        (16, 0, False, True, True),
        (1, 32, False, False, True),
        (16, 32, False, False, False),
        (1, 32, False, True, True),
        (64, 0, True, False, True),
        (64, 0, True, True, True),
    ],
    ids="page 1,page 16 no host lengths,page 64,graph,window,window paged,window graph,sliding,sliding graph".split(
        ","
    ),
)

# Where our round gives SGLang something else than the built-in worker's, and why it should.
INTENDED = {
    "draft.batch.input_embeds": "the block is embedded inside the pass, and so inside its graph",
    "draft.batch.seq_lens": "int64 as everywhere; the built-in worker's windowed lengths are int32",
    "draft.batch.seq_lens_cpu": "int64; with a window it counts the block too, which the built-in worker leaves out",
    "draft.batch.seq_lens_sum": "the sum of those",
    "draft.metadata.max_seq_len_k": "follows the host's lengths",
}


def check_round(launch, card: str, monkeypatch, graph: bool, host_lens: bool, intended=INTENDED) -> dict:
    """Both workers' rounds on ``card``: right tokens, and the same metadata and kernel arguments."""
    with launch.on(CARDS[card], monkeypatch, graph, host_lens):
        ours, theirs = launch.rounds()
    for name, seen in (("ours", ours), ("builtin", theirs)):
        assert kept(seen.result) == launch.reference[name], name
        assert seen.result.can_run_cuda_graph == graph
        assert [one["part"] for one in seen.passes] == ["draft", "target"]
        assert len(seen.calls) == 10, "two layers of the draft, eight of the target"
    found = unlike(ours, theirs)
    assert found.keys() <= intended.keys(), {name: pair for name, pair in found.items() if name not in intended}
    if "draft.batch.seq_lens" in found:
        mine, other = found["draft.batch.seq_lens"]
        assert as_ints(mine) == as_ints(other)
    check_bounds(launch, ours)
    return found


def check_bounds(launch, seen) -> None:
    """What the host believes is read covers what is read."""
    for one in seen.passes:
        lens, bound = as_ints(one["batch"]["seq_lens"]), one["batch"]["seq_lens_cpu"]
        width = one["spec"]["draft_token_num"]
        if bound is not None:
            for row in range(len(launch.batch.reqs)):
                assert int(bound[row]) >= int(lens[row]) + width, (one["part"], bound, lens)
