"""The choice of a round's shape, on lists: optima that are known, and what holds for every load."""

import random
from types import SimpleNamespace

import pytest

from sglang_dflash.engine.policy.adaptive import Adaptive
from sglang_dflash.engine.policy.choice import Forecast, best, forecast
from sglang_dflash.engine.policy.costs import Costs, ascending, monotone
from sglang_dflash.engine.policy.policy import Fixed, Random
from sglang_dflash.engine.policy.probe import probe
from sglang_dflash.engine.policy.shapes import shapes_within
from sglang_dflash.engine.policy.survival import RequestSurvival, Survival, Tally, kept_by_depth
from sglang_dflash.engine.policy.trials import SHARE, Trials
from sglang_dflash.types import Shape

PLAIN, CHAINS = Shape.plain(), [Shape.chain(width) for width in (2, 4, 8, 16)]
SHAPES = (PLAIN, *CHAINS)
DRAFT = 0.4  # of a plain step


def cost(shape: Shape, bs: int) -> float:
    """A machine that reads weights for the first 8 rows and computes from there on, as GPUs and CPUs do."""
    return max(1.0, bs * shape.width / 8) + (DRAFT if shape.drafts else 0.0)


def choice(acceptance: float, bs: int) -> Shape:
    kept = kept_by_depth([acceptance] * 15)
    return best(forecast(SHAPES, bs, lambda shape: bs * kept[shape.path_len - 1], cost)).shape


@pytest.mark.parametrize(
    ("acceptance", "bs", "shape"),
    [
        (0.0, 1, PLAIN),
        (0.3, 1, CHAINS[2]),  # rows are free up to 8, and 1.43 tokens pay for the draft
        (0.2, 1, PLAIN),
        (0.9, 1, CHAINS[2]),
        (0.97, 1, CHAINS[3]),
        (0.9, 4, CHAINS[1]),
        (0.9, 32, PLAIN),  # a row more costs a row more
    ],
)
def test_known_optima(acceptance, bs, shape):
    assert choice(acceptance, bs) == shape


def test_more_requests_never_want_wider_and_better_drafts_never_narrower():
    for acceptance in (0.1, 0.5, 0.8, 0.95):
        widths = [choice(acceptance, bs).width for bs in range(1, 65)]
        assert widths == sorted(widths, reverse=True)
    for bs in (1, 2, 4, 8):
        widths = [choice(step / 50, bs).width for step in range(51)]
        assert widths == sorted(widths)


def test_of_equals_the_first_is_taken():
    near = [Forecast(PLAIN, 1.0, 1.0), Forecast(CHAINS[0], 2.0, 2.0), Forecast(CHAINS[1], 0.9, 1.0)]
    assert best(near).shape == PLAIN and best(near[::-1]).shape == CHAINS[0]


def test_the_set_of_shapes():
    assert shapes_within(Shape.chain(16), 16) == SHAPES
    assert [shape.label for shape in shapes_within(Shape.chain(5), 16)] == ["plain", "chain-2", "chain-4", "chain-5"]
    assert shapes_within(PLAIN, 16) == (PLAIN,)
    trees = shapes_within(Shape.tree(40, 8), 8)
    assert [s.label for s in trees] == ["plain", "chain-2", "chain-4", "chain-8", "tree-16", "tree-32", "tree-40"]
    assert {shape.path_len for shape in trees if shape.is_tree} == {8}
    assert max(shape.width for shape in shapes_within(Shape.tree(3, 3), 16)) == 3
    looked_up = shapes_within(Shape.chain(32), 8, lookup=True)
    labels = ["plain", "chain-2", "chain-4", "chain-8", "chain-32"]
    assert [s.label for s in looked_up] == [*labels, "context-4", "context-8", "context-16", "context-32"]


class TestSurvival:
    def test_acceptance_is_learnt_by_depth(self):
        tally = Tally(4, keep=1.0)
        for kept in (0, 1, 1, 2, 3):  # of chains of three drafts: nothing is known of the fourth
            tally.add(kept, 3)
        assert tally.acceptance([0.5] * 4, 0.0001) == pytest.approx([4 / 5, 2 / 4, 1 / 2, 0.5], abs=1e-3)
        assert kept_by_depth([0.5, 0.5]) == [0.0, 0.5, 0.75]

    def test_a_new_request_is_expected_to_be_like_the_others_and_then_like_itself(self):
        survival, bad, good = Survival(SHAPES), RequestSurvival(), RequestSurvival()
        for _ in range(60):
            survival.add(CHAINS[2], 0, bad)
            survival.add(CHAINS[2], 6, good)
        fresh, of_bad, of_good = (survival.kept([request])[None][0][7] for request in (RequestSurvival(), bad, good))
        assert 1.5 * of_bad < fresh < of_good / 1.5
        each = survival.kept([bad, good, RequestSurvival()])[None]
        assert [kept[7] for kept in each] == pytest.approx([of_bad, of_good, fresh])

    def test_a_tree_is_thought_better_than_the_chain_until_it_was_tried(self):
        tree, request = Shape.tree(32, 16), RequestSurvival()
        survival = Survival((*SHAPES, tree))
        for _ in range(50):
            survival.add(CHAINS[3], 2, request)
        kept = survival.kept([request])
        assert kept[tree][0][15] > kept[None][0][15]
        for _ in range(50):
            survival.add(tree, 1, request)
        kept = survival.kept([request])
        assert kept[tree][0][15] < 1.5 < kept[None][0][15]


class TestCosts:
    def test_between_and_beyond_what_was_probed(self):
        costs = Costs({PLAIN: [(1, 10.0), (4, 16.0), (8, 40.0)], CHAINS[0]: [(2, 5.0)]})
        assert [costs.ms(PLAIN, bs) for bs in (1, 2, 4, 6, 8, 10)] == pytest.approx([10, 12, 16, 28, 40, 52])
        assert [costs.ms(CHAINS[0], bs) for bs in (1, 2, 4)] == pytest.approx([5, 5, 10])

    def test_noise_never_makes_more_work_cheaper(self):
        assert ascending([3.0, 1.0, 2.0, 5.0]) == [2.0, 2.0, 2.0, 5.0]
        assert ascending([1.0, 2.0, 2.0]) == [1.0, 2.0, 2.0]
        table = monotone({CHAINS[1]: [(1, 8.0), (2, 7.0)], PLAIN: [(1, 9.5), (2, 10.5)]})
        assert table == {PLAIN: [(1, 8.5), (2, 9.0)], CHAINS[1]: [(1, 8.5), (2, 9.0)]}

    def test_a_slower_machine_makes_every_shape_dearer_and_a_shapes_own_error_only_itself(self):
        costs = Costs({PLAIN: [(1, 10.0)], CHAINS[0]: [(1, 12.0)]})
        for _ in range(60):
            costs.add(PLAIN, 1, 20.0)
        assert costs.ms(PLAIN, 1) == pytest.approx(20, rel=0.02)
        assert costs.ms(CHAINS[0], 1) > 15
        for _ in range(60):
            costs.add(PLAIN, 1, 20.0)
            costs.add(CHAINS[0], 1, 40.0)
        assert costs.ms(PLAIN, 1) == pytest.approx(20, rel=0.2)
        assert costs.ms(CHAINS[0], 1) == pytest.approx(40, rel=0.2)
        costs.add(PLAIN, 1, 1e6)
        assert costs.ms(PLAIN, 1) < 30

    def test_probing_takes_medians_and_ends_where_rounds_are_long(self):
        played = []

        def run(shape, bs):
            played.append((shape, bs))
            return 30.0 * bs * shape.width

        found = probe(run, (PLAIN, CHAINS[2]), 16, lambda value: value)
        assert found == {PLAIN: [(1, 30.0), (2, 60.0), (4, 120.0)], CHAINS[2]: [(1, 240.0), (2, 480.0), (4, 960.0)]}
        assert played.count((PLAIN, 1)) == played.count((CHAINS[2], 1)) == 3
        slow = iter([0.0, 0.0, 2.0, 8.0, 9.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
        assert probe(lambda shape, bs: next(slow), SHAPES[:2], 1, float) == {PLAIN: [(1, 1.0)], CHAINS[0]: [(1, 1.0)]}


class Server:
    """Rounds of requests whose drafts are right with probability ``right`` at every depth, on a clock of its own."""

    def __init__(self, right: float, shapes=SHAPES, seed=3, agree=lambda index: index):
        self.now, self.right, self.random, self.shapes = 0.0, right, random.Random(seed), []
        probed = {shape: [(bs, cost(shape, bs)) for bs in (1, 2, 4, 8, 16, 32)] for shape in shapes}
        self.policy = Adaptive(shapes, Costs(probed), agree, clock=lambda: self.now / 1e3)
        self.tokens = 0

    def run(self, reqs, rounds: int) -> float:
        """Tokens per ms of so many rounds."""
        start, tokens = self.now, self.tokens
        for _ in range(rounds):
            shape = self.policy.choose(SimpleNamespace(reqs=reqs))
            self.shapes.append(shape)
            self.now += cost(shape, len(reqs))
            kept = [self._kept(shape) for _ in reqs]
            self.policy.emitted(kept)
            self.tokens += len(kept) + sum(kept)
        return (self.tokens - tokens) / (self.now - start)

    def _kept(self, shape) -> int:
        kept = 0
        while kept < shape.path_len - 1 and self.random.random() < self.right:
            kept += 1
        return kept


class Req:
    pass


@pytest.mark.parametrize("bs", [1, 4, 8])
@pytest.mark.parametrize("right", [0.0, 0.2, 0.5, 0.8, 0.95])
def test_adaptive_is_as_good_as_the_best_fixed_shape(right, bs):
    kept = kept_by_depth([right] * 15)
    rates = [each.rate for each in forecast(SHAPES, bs, lambda shape: bs * kept[shape.path_len - 1], cost)]
    server, reqs = Server(right), [Req() for _ in range(bs)]
    server.run(reqs, 100)
    assert server.run(reqs, 4000) > 0.96 * max(rates)
    assert set(server.shapes) <= set(SHAPES)


def test_a_useless_draft_costs_next_to_nothing_and_a_better_one_is_found():
    server, reqs = Server(0.0), [Req()]
    server.run(reqs, 50)
    assert server.run(reqs, 5000) > 1 - 1.5 * SHARE
    server.right = 0.9
    server.run([Req()], 1500)
    assert server.shapes[-200:].count(CHAINS[2]) > 150


def test_a_request_that_is_better_than_the_others_is_found_out():
    server, reqs = Server(0.1), [Req()]
    server.run(reqs, 600)
    assert server.shapes[-100:].count(PLAIN) > 90
    report = server.policy.report
    assert report.rounds == 600 and sum(sums.rounds for sums in report.sums.values()) == 600
    assert report.sums[PLAIN].tokens == report.sums[PLAIN].rounds
    assert len(report.table().splitlines()) > 1


def test_what_the_context_says_is_taken_where_it_pays_and_not_tried():
    """A draft that is never right, and contexts that copy from some round on."""
    shapes, says = shapes_within(Shape.chain(16), 16, lookup=True), [0.0]
    contexts = {shape for shape in shapes if shape.kind == "context"}
    now = [0.0]

    def expected(reqs, count):
        return [[says[0] * depth for depth in range(count + 1)] for _ in reqs]

    def ms(shape, bs):
        return cost(shape, bs) + 0.01 * shape.width

    costs = Costs({shape: [(bs, ms(shape, bs)) for bs in (1, 8)] for shape in shapes})
    policy = Adaptive(shapes, costs, lambda i: i, contexts=expected, clock=lambda: now[0] / 1e3)
    req, chosen = Req(), []
    for number in range(800):
        says[0] = 0.9 if 200 <= number < 400 else 0.0
        chosen.append(policy.choose(SimpleNamespace(reqs=[req])))
        now[0] += ms(chosen[-1], 1)
        policy.emitted([int(says[0] * (chosen[-1].path_len - 1))])  # beside a draft the better of both is proposed
    assert not contexts & set(chosen[:200]) and chosen[:200].count(PLAIN) > 150
    # Up to 8 rows cost one; 16 cost two and bring 15 * 0.9.
    copying = chosen[200:400]
    assert copying.count(Shape.context(8)) + copying.count(Shape.context(16)) > 180
    assert not contexts & set(chosen[400:])


def test_tries_spend_no_more_than_their_share():
    trials = Trials(SHAPES)
    forecasts = [Forecast(PLAIN, 1.0, 10.0), Forecast(CHAINS[0], 1.0, 15.0), Forecast(CHAINS[1], 1.0, 100.0)]
    spent = 0.0
    for _ in range(5000):
        chosen = trials.next(forecasts, forecasts[0])
        if chosen is not forecasts[0]:
            spent += chosen.loss(forecasts[0])
            trials.outcome(chosen, forecasts[0], 1)
    assert 0 < spent <= SHARE * 10.0 * 5000


def test_rank_0_decides():
    server = Server(0.9, agree=lambda index: 1)
    server.run([Req()], 20)
    assert set(server.shapes) == {CHAINS[0]}


def test_late_news_and_interruptions():
    """Under overlap scheduling a round is chosen before the host knows what the last one kept; prefills lie between."""
    now = [0.0]
    policy = Adaptive(SHAPES, Costs({s: [(1, cost(s, 1))] for s in SHAPES}), lambda i: i, clock=lambda: now[0])
    batch, other = SimpleNamespace(reqs=[Req()]), SimpleNamespace(reqs=[Req(), Req()])
    policy.choose(batch)
    policy.interrupted()
    now[0] += 9.0
    policy.choose(other)  # no round's time: a prefill came between
    policy.emitted([1])
    now[0] += 9.0
    policy.choose(batch)  # nor this one: nobody is left of the batch before, so the server may have been idle
    assert sum(sums.timed for sums in policy.report.sums.values()) == 0
    now[0] += 1e-3
    policy.choose(batch)
    assert sum(sums.timed for sums in policy.report.sums.values()) == 1
    with pytest.raises(ValueError):
        policy.emitted([1])  # of two requests


def test_fixed_and_by_chance():
    assert {Fixed(CHAINS[2]).choose(None) for _ in range(5)} == {CHAINS[2]}
    one, other = Random(SHAPES), Random(SHAPES)
    drawn = [one.choose(None) for _ in range(200)]
    assert drawn == [other.choose(None) for _ in range(200)] and set(drawn) == set(SHAPES)
