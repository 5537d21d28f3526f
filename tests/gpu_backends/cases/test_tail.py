"""What a verify pass's graph does behind the pass, in SGLang's own graph runner, and when a round takes it."""

import pytest
import torch
from backends import CARDS
from rounds import kept

from sglang_dflash.engine.graph_tail import GraphTail


@pytest.fixture
def taken(monkeypatch) -> list[bool]:
    """Whether each round took its graph's outcome."""
    answers, take = [], GraphTail.take

    def watched(self, *args):
        answers.append(take(self, *args))
        return answers[-1]

    monkeypatch.setattr(GraphTail, "take", watched)
    return answers


def pool_rows(launch) -> torch.Tensor:
    """Keys and values of every layer of our draft, [layers, slots, numbers]."""
    return torch.stack([rows.clone() for rows in launch.world.runners["ours"].token_to_kv_pool.rows])


def window(launch, width: int) -> torch.Tensor:
    """The slots of every request's window [bs, width]."""
    rows = launch.world.target.model_runner.req_to_token_pool.req_to_token[launch.batch.req_pool_indices]
    return rows.long().gather(1, launch.batch.seq_lens[:, None] + torch.arange(width))


@pytest.mark.parametrize(("width", "block"), ((16, 16), (8, 16)))
@pytest.mark.parametrize("card", ("fa3", "trtllm_mha"))
def test_a_greedy_round_takes_what_the_graph_has_done(launches, monkeypatch, taken, card, width, block):
    launch = launches(16, width=width, block=block)
    slots = window(launch, block)
    launch.world.enter()
    wanted = launch.world.run("ours", launch.batch)
    eager = pool_rows(launch)
    taken.clear()
    with launch.on(CARDS[card], monkeypatch, graph=True):
        for rows in launch.world.runners["ours"].token_to_kv_pool.rows:
            rows[slots] = torch.nan
        seen = launch.round("ours")
        after = pool_rows(launch)
    assert taken == [True] and kept(seen.result) == kept(wanted)
    assert torch.equal(seen.result.new_seq_lens, wanted.new_seq_lens)
    committed = torch.cat([row[:count] for row, count in zip(slots, wanted.accept_lens.tolist(), strict=True)])
    torch.testing.assert_close(after[:, committed], eager[:, committed])
    # The graph's fourth request is padding, which goes where nothing is kept.
    others = torch.ones(after.shape[1], dtype=torch.bool)
    others[slots.view(-1)], others[0] = False, False
    assert torch.equal(after[:, others], eager[:, others])


def test_an_eager_pass_is_not_taken_for_a_graph(launches, monkeypatch, taken):
    """Whatever a pass says of itself: what SGLang planned decides, or the tokens of another batch are served."""
    launch = launches(16)
    target = launch.world.target
    taken.clear()
    with launch.on(CARDS["fa3"], monkeypatch, graph=True):
        launch.round("ours")
        assert taken == [True]
        monkeypatch.setattr(target.model_runner.decode_cuda_graph_runner, "can_run_graph", lambda batch: False)
        forward = target.forward_batch_generation

        def boasting(*args, **kwargs):
            result = forward(*args, **kwargs)
            result.can_run_cuda_graph = True
            return result

        monkeypatch.setattr(target, "forward_batch_generation", boasting)
        seen = launch.round("ours")
    assert taken == [True, False] and kept(seen.result) == launch.reference["ours"]


def test_rounds_of_another_width_than_the_graphs_stay_eager(launches, monkeypatch, taken):
    """A tail on graphs that were captured for other widths has nothing to give, and says so."""
    launch = launches(16, width=8, block=16)
    taken.clear()
    with launch.on(CARDS["fa3"], monkeypatch, graph=True):
        runner = launch.world.target.model_runner.decode_cuda_graph_runner
        monkeypatch.setattr(runner, "captured_req_width", 16)
        seen = launch.round("ours")
    assert taken == [False] and not seen.result.can_run_cuda_graph
    assert kept(seen.result) == launch.reference["ours"]
