"""Acceptance and injection inside a graph: what the captured hook computes, and when a round takes it."""

from types import SimpleNamespace

import pytest
import torch
from rooms import HEAD_DIM, HIDDEN, KV_HEADS, LAYERS, Pool, checkpoint, draft_model, one_rank, runner
from sglang.srt.model_executor.forward_batch_info import ForwardMode

from sglang_dflash.engine.commit.inject import ContextInjector
from sglang_dflash.engine.graph_tail import GraphTail, NoTail
from sglang_dflash.engine.updates.derived import recompute_derived
from sglang_dflash.kernels.accept.naive import accept
from sglang_dflash.types import Features, empty_acceptance

WIDTH, VOCAB, GRAPH, FEATURES = 4, 50, 4, 2 * 32
GREEDY = True  # the batch takes the most likely token at every node


class Target(SimpleNamespace):
    """The target's runner, as far as a graph's tail looks at it."""

    def __init__(self, translating=False):
        super().__init__(
            device="cpu",
            capture_tail_hooks=[],
            kv_index_translator=SimpleNamespace(is_translating=translating),
        )


class Verify:
    """One verify pass of ``bs`` requests in a graph of ``GRAPH``: its buffers, and what it gives."""

    def __init__(self, bs: int, seed: int = 0):
        torch.manual_seed(seed)
        self.bs = bs
        tokens = torch.randint(0, VOCAB, (GRAPH, WIDTH))
        logits = torch.randn(GRAPH * WIDTH, VOCAB)
        # Node i's child is what the target says, up to a different depth in each request.
        for request in range(GRAPH):
            for node in range(request % WIDTH):
                logits[request * WIDTH + node, tokens[request, node + 1]] = 9.0
        prefix = torch.tensor([5, 9, 2, 1])
        slots = torch.randperm(30)[: GRAPH * WIDTH] + 1
        slots[bs * WIDTH :] = 0
        self.tokens, self.prefix, self.slots = tokens, prefix, slots
        self.output = SimpleNamespace(next_token_logits=logits, hidden_states=torch.randn(GRAPH * WIDTH, FEATURES))
        self.batch = SimpleNamespace(
            forward_mode=ForwardMode.TARGET_VERIFY,
            spec_info=SimpleNamespace(draft_token_num=WIDTH),
            input_ids=tokens.view(-1),
            seq_lens=prefix,
            out_cache_loc=slots,
            positions=None,
        )

    def eager(self, inject: ContextInjector):
        """What a round computes after the pass."""
        accepted = empty_acceptance(self.bs, WIDTH, "cpu")
        rows = slice(0, self.bs * WIDTH)
        chosen = self.output.next_token_logits[rows].argmax(-1).view(self.bs, WIDTH)
        accept(self.tokens[: self.bs], chosen, None, self.prefix[: self.bs], accepted)
        positions = (self.prefix[: self.bs, None] + torch.arange(WIDTH)).view(-1)
        inject(Features(self.output.hidden_states[rows], positions, self.slots[rows], accepted.commit_lens))
        return accepted


@pytest.fixture(scope="module")
def model():
    return draft_model()


def injector(model, pool: Pool) -> ContextInjector:
    with one_rank():
        inject = ContextInjector(model, runner(pool))
        inject.prepare()
    return inject


def pools() -> tuple[Pool, Pool]:
    """Two with the same rows."""
    first, second = (Pool(LAYERS, 40, KV_HEADS, HEAD_DIM) for _ in range(2))
    second.keys, second.values = ([row.clone() for row in rows] for rows in (first.keys, first.values))
    return first, second


@pytest.mark.parametrize("bs", (1, 3, GRAPH))
def test_a_graphs_outcome_is_the_rounds_own(model, bs):
    pool, other = pools()
    target, verify = Target(), Verify(bs)
    tail = GraphTail(target, WIDTH, injector(model, pool))
    (hook,) = target.capture_tail_hooks
    with one_rank():
        hook(None, verify.output, verify.batch, GRAPH * WIDTH)
        wanted = verify.eager(injector(model, other))
    accepted = empty_acceptance(bs, WIDTH, "cpu")
    assert tail.take(GRAPH, GREEDY, accepted)
    for name, got, own in zip(accepted._fields, accepted, wanted, strict=True):
        assert torch.equal(got, own), name
    assert accepted.commit_lens.tolist() == [1, 2, 3, 4][:bs]
    for got, own in ((pool.keys, other.keys), (pool.values, other.values)):
        for ours, theirs in zip(got, own, strict=True):
            # Slot 0 is where the padding of a graph goes.
            torch.testing.assert_close(ours[1:], theirs[1:])


def test_the_outcome_is_copied_out_of_the_graphs_buffers(model):
    target, first, second = Target(), Verify(GRAPH, 1), Verify(GRAPH, 2)
    tail = GraphTail(target, WIDTH, injector(model, pools()[0]))
    accepted = empty_acceptance(GRAPH, WIDTH, "cpu")
    with one_rank():
        tail.capture(None, first.output, first.batch, GRAPH * WIDTH)
        assert tail.take(GRAPH, GREEDY, accepted)
        before = accepted.emitted.clone()
        tail.capture(None, second.output, second.batch, GRAPH * WIDTH)
    assert torch.equal(accepted.emitted, before)


def test_rounds_that_a_graph_cannot_finish(model):
    """Eager passes, choices that are not the most likely token, other sizes."""
    target, verify = Target(), Verify(2)
    inject = injector(model, pools()[0])
    tail = GraphTail(target, WIDTH, inject)
    with one_rank():
        tail.capture(None, verify.output, verify.batch, GRAPH * WIDTH)
    accepted = empty_acceptance(2, WIDTH, "cpu")
    assert tail.take(GRAPH, GREEDY, accepted)
    assert not tail.take(None, GREEDY, accepted)
    assert not tail.take(GRAPH, False, accepted)
    assert not tail.take(8, GREEDY, accepted)
    assert not NoTail(inject).take(GRAPH, GREEDY, accepted)
    with pytest.raises(AssertionError, match="smaller than the batch"):
        tail.take(GRAPH, GREEDY, empty_acceptance(GRAPH + 1, WIDTH, "cpu"))


def test_a_sampled_batch_stores_what_the_graph_has_projected(model, monkeypatch):
    """Its own lengths, the graph's keys and values: the projection is not done twice."""
    pool, other = pools()
    target, verify = Target(), Verify(3)
    inject = injector(model, pool)
    tail = GraphTail(target, WIDTH, inject)
    with one_rank():
        tail.capture(None, verify.output, verify.batch, GRAPH * WIDTH)
        monkeypatch.setattr(inject, "project", None)
        rows = slice(0, 3 * WIDTH)
        positions = (verify.prefix[:3, None] + torch.arange(WIDTH)).view(-1)
        lengths = torch.tensor([4, 1, 2], dtype=torch.int32)
        features = Features(verify.output.hidden_states[rows], positions, verify.slots[rows], lengths)
        tail.inject(GRAPH, features)
        injector(model, other)(features)
    for got, own in ((pool.keys, other.keys), (pool.values, other.values)):
        for ours, theirs in zip(got, own, strict=True):
            for request, length in enumerate(lengths.tolist()):
                kept = verify.slots[request * WIDTH :][:length]
                torch.testing.assert_close(ours[kept], theirs[kept])


def test_graphs_of_other_widths_are_left_alone(model):
    """All hooks run for all graphs: a lane's tail knows its own by the nodes per request."""
    target, verify = Target(), Verify(GRAPH)
    tail = GraphTail(target, WIDTH // 2, injector(model, pools()[0]))
    with one_rank():
        tail.capture(None, verify.output, verify.batch, GRAPH * WIDTH)
    assert not tail.take(GRAPH, GREEDY, empty_acceptance(GRAPH, WIDTH // 2, "cpu"))
    assert not tail.take(2 * GRAPH, GREEDY, empty_acceptance(GRAPH, WIDTH // 2, "cpu"))


def test_an_update_of_the_weights_reaches_what_a_graph_has_captured():
    """The graph reads packed weights where its capture did: they must stay there."""
    model, pool = draft_model(), pools()[0]
    inject, fused = injector(model, pool), torch.randn(3, HIDDEN)
    held = inject._project._weight, inject._plan.norm_weights, inject._plan.pointers
    places, before = [tensor.data_ptr() for tensor in held], inject._project(fused)
    with one_rank():
        model.load_weights(checkpoint(seed=5).items())
    recompute_derived(model)
    now = inject._project._weight, inject._plan.norm_weights, inject._plan.pointers
    assert [tensor.data_ptr() for tensor in now] == places
    fresh = injector(model, pool)
    assert torch.equal(inject._project(fused), fresh._project(fused)) and not torch.equal(fresh._project(fused), before)
    assert torch.equal(inject._plan.norm_weights, fresh._plan.norm_weights)


@pytest.mark.parametrize("case", ("draft", "no features", "translated slots"))
def test_passes_that_have_no_tail(model, case):
    target, verify = Target(translating=case == "translated slots"), Verify(2)
    tail = GraphTail(target, WIDTH, injector(model, pools()[0]))
    if case == "draft":
        verify.batch.forward_mode = ForwardMode.DECODE
    if case == "no features":
        verify.output.hidden_states = None
    tail.capture(None, verify.output, verify.batch, GRAPH * WIDTH)
    assert not tail.take(GRAPH, GREEDY, empty_acceptance(2, WIDTH, "cpu"))
