"""Sampling is exact: all outcomes of the real accept op, weighted, sum to the target's distribution."""

import itertools
from collections import defaultdict

import pytest
import torch
from toy import PLAIN, ToyDraft, ToyTarget, node_prefixes, rows_of

from sglang_dflash.kernels.accept.naive import accept
from filtered_rows import sample_rows
from sglang_dflash.types import empty_acceptance

FILTERS = {
    "plain": PLAIN,
    "temperature": (0.6, 1 << 30, 1.0, 0.0),
    "top-k": (1.0, 2, 1.0, 0.0),
    "top-p": (1.0, 1 << 30, 0.7, 0.0),
    "min-p": (1.0, 1 << 30, 1.0, 0.3),
    "all": (1.3, 3, 0.9, 0.1),
}
LENGTH = 4


def emissions(tokens, parents, tree: bool, choices: torch.Tensor) -> list[tuple]:
    """What one round emits for every row of target choices [N, W], by the real op."""
    count, width = choices.shape
    parent_rows = torch.tensor(parents, dtype=torch.int32).expand(count, width).contiguous() if tree else None
    out = empty_acceptance(count, width, "cpu")
    token_rows = torch.tensor(tokens).expand(count, width).contiguous()
    accept(token_rows, choices, parent_rows, torch.zeros(count, dtype=torch.int64), out)
    lengths = out.commit_lens.tolist()
    return [tuple(row[:n]) for row, n in zip(out.emitted.tolist(), lengths, strict=True)]


def independent_choices(target: ToyTarget, prefixes: list[tuple]):
    """Every combination of the target's samples at the nodes, and its probability."""
    probs = target.probs(prefixes)
    choices = torch.tensor(list(itertools.product(range(target.vocab), repeat=len(prefixes))))
    weights = probs.T.gather(0, choices).prod(1)
    return choices, weights


def seeded_choices(target: ToyTarget, prefixes: list[tuple]):
    """The same where one uniform number per position serves all nodes there, as seeded sampling does."""
    depths = [len(prefix) for prefix in prefixes]
    probs = target.probs(prefixes)
    levels = sorted(set(depths))
    cells = []
    for level in levels:
        rows = probs[[i for i, depth in enumerate(depths) if depth == level]]
        edges = rows.sort(dim=1, descending=True).values.cumsum(1).flatten()
        edges = torch.cat((torch.zeros(1), edges.clamp(max=1.0), torch.ones(1))).double().unique()
        cells.append([((a + b) / 2, b - a) for a, b in itertools.pairwise(edges.tolist())])
    logits = torch.stack([target.logits(prefix) for prefix in prefixes])
    choices, weights = [], []
    for combination in itertools.product(*cells):
        uniforms = [combination[levels.index(depth)][0] for depth in depths]
        choices.append(
            sample_rows(logits, *rows_of(target.filters, len(prefixes)), torch.tensor(uniforms, dtype=torch.float64))
        )
        weight = 1.0
        for _, length in combination:
            weight *= length
        weights.append(weight)
    return torch.stack(choices), torch.tensor(weights, dtype=torch.float64)


def speculative_distribution(target: ToyTarget, draft: ToyDraft, enumerate_choices) -> dict[tuple, float]:
    """Probability of every sequence of LENGTH tokens under round after round of speculation."""
    finished, open_prefixes = defaultdict(float), {(): 1.0}
    while open_prefixes:
        following = defaultdict(float)
        for prefix, mass in open_prefixes.items():
            tokens, parents = draft.propose(prefix)
            choices, weights = enumerate_choices(target, node_prefixes(prefix, tokens, parents))
            emitted = emissions(tokens, parents, draft.tree, choices)
            for sequence, weight in zip(emitted, weights.tolist(), strict=True):
                longer = (*prefix, *sequence)
                where = finished if len(longer) >= LENGTH else following
                where[longer[:LENGTH]] += mass * weight
        open_prefixes = following
    return finished


def assert_same(got: dict[tuple, float], wanted: dict[tuple, float]) -> None:
    worst = max(abs(got.get(sequence, 0.0) - mass) for sequence, mass in wanted.items())
    assert worst < 1e-12
    assert abs(sum(got.values()) - 1.0) < 1e-12


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("tree", (False, True), ids=("chain", "tree"))
@pytest.mark.parametrize("vocab,width", ((3, 4), (4, 3), (5, 3), (3, 5)))
def test_emits_the_target_distribution(name, tree, vocab, width):
    target = ToyTarget(vocab, seed=vocab, filters=FILTERS[name])
    wanted = target.sequences(LENGTH)
    for seed in range(3):
        draft = ToyDraft(vocab, width, tree, seed)
        assert_same(speculative_distribution(target, draft, independent_choices), wanted)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("tree", (False, True), ids=("chain", "tree"))
def test_one_random_number_per_position_is_enough(name, tree):
    target = ToyTarget(3, seed=1, filters=FILTERS[name])
    draft = ToyDraft(3, 3, tree, seed=2)
    assert_same(speculative_distribution(target, draft, seeded_choices), target.sequences(LENGTH))


def test_a_wrong_accept_rule_would_be_seen():
    """The enumeration has teeth: emitting the draft's first token regardless is far off."""
    target, draft = ToyTarget(3, seed=1), ToyDraft(3, 4, tree=False, seed=0)
    wanted = target.sequences(LENGTH)
    got = defaultdict(float)
    first = draft.propose(())[0][1]
    for sequence, mass in wanted.items():
        got[(first, *sequence[1:])] += mass
    with pytest.raises(AssertionError):
        assert_same(got, wanted)
