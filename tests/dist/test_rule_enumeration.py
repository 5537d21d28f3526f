"""Sampling stays exact with rules on: all outcomes of rule, choice and acceptance sum to plain decoding's distribution."""

import pytest
import torch
from host_requests import Request, batch_of
from test_enumeration import FILTERS, LENGTH, assert_same, independent_choices, seeded_choices, speculative_distribution
from toy import PLAIN, ToyDraft, ToyTarget

from filtered_rows import filtered_probs
from sglang_dflash.engine.verify.rules import build_rules
from sglang_dflash.types import Proposal
from toy import rows_of

CPU = torch.device("cpu")
# Numbers that float32 has exactly, so that the oracle's float64 is the rule's.
SAMPLING = {
    "frequency": {"frequency_penalty": 0.75},
    "presence": {"presence_penalty": -1.5},
    "repetition": {"repetition_penalty": 1.75},
    "min_new_tokens": {"min_new_tokens": 3, "stop_token_ids": [1]},
    "all": {
        "frequency_penalty": 0.5,
        "presence_penalty": 0.75,
        "repetition_penalty": 0.5,
        "min_new_tokens": 2,
        "stop_token_ids": [0],
    },
}
BIAS = {"all": (0.5, 0.0, -1.25)}


class RuledTarget(ToyTarget):
    """Plain decoding with rules, in plain Python: nothing of ours is used."""

    def __init__(self, vocab: int, seed: int, filters: tuple, name: str):
        super().__init__(vocab, seed, filters)
        self.name, self.asked = name, SAMPLING[name]

    def ruled(self, prefix: tuple) -> torch.Tensor:
        """[V] fp64: logits after ``prefix`` was emitted."""
        row = super().logits(prefix).tolist()
        for token in range(self.vocab):
            times = prefix.count(token)
            if times:
                row[token] -= times * self.asked.get("frequency_penalty", 0) + self.asked.get("presence_penalty", 0)
                scale = self.asked.get("repetition_penalty", 1)
                row[token] = row[token] * scale if row[token] < 0 else row[token] / scale
            if len(prefix) < self.asked.get("min_new_tokens", 0) and token in self.asked["stop_token_ids"]:
                row[token] = -torch.inf
            row[token] += BIAS.get(self.name, (0.0,) * self.vocab)[token]
        return torch.tensor(row, dtype=torch.float64)

    def probs(self, prefixes: list[tuple]) -> torch.Tensor:
        return filtered_probs(torch.stack([self.ruled(p) for p in prefixes]), *rows_of(self.filters, len(prefixes)))


class NodesTarget:
    """The target as a verify pass sees it: plain logits of all nodes at once, then our rules."""

    def __init__(self, target: RuledTarget, tree: bool):
        self.vocab, self.filters = target.vocab, target.filters
        self._plain, self._tree, self._target = target, tree, target
        self.proposal = None

    def ruled(self, prefixes: list[tuple]) -> torch.Tensor:
        (prefix, tokens, parents), target = self.proposal, self._target
        req = Request([7, 7], prefix, **target.asked)
        batch = batch_of([req])
        batch.sampling_info.logit_bias = torch.tensor([BIAS.get(target.name, (0.0,) * self.vocab)])
        depths = [len(p) - len(prefix) for p in prefixes]
        proposal = Proposal(
            torch.tensor([tokens]),
            torch.tensor([parents], dtype=torch.int32) if self._tree else None,
            torch.tensor([[req.prefix_len + depth for depth in depths]]),
        )
        logits = torch.stack([ToyTarget.logits(target, p) for p in prefixes]).unsqueeze(0)
        rules = build_rules(self.vocab, CPU).of(batch)
        assert len(rules) == 2
        for rule in rules:
            rule.apply(logits, batch, proposal)
        # The root comes first; padding, whose prefix is said to be the root's, is of no interest.
        self._rows = dict(reversed(list(zip(prefixes, logits[0], strict=True))))
        return logits[0]

    def probs(self, prefixes: list[tuple]) -> torch.Tensor:
        return filtered_probs(self.ruled(prefixes), *rows_of(self.filters, len(prefixes)))

    def logits(self, prefix: tuple) -> torch.Tensor:
        return self._rows[prefix]


class WatchedDraft(ToyDraft):
    """Tells the target what is verified."""

    target: NodesTarget

    def propose(self, prefix: tuple):
        tokens, parents = super().propose(prefix)
        # The anchor's token is the last emitted one; nobody may count it twice.
        tokens[0] = prefix[-1] if prefix else 0
        self.target.proposal = prefix, tokens, parents
        return tokens, parents


def _compare(name: str, tree: bool, filters: tuple, choices, width: int, seed: int) -> None:
    target = RuledTarget(3, seed, filters, name)
    draft = WatchedDraft(3, width, tree, seed)
    draft.target = NodesTarget(target, tree)
    assert_same(speculative_distribution(draft.target, draft, choices), target.sequences(LENGTH))


@pytest.mark.parametrize("name", SAMPLING)
@pytest.mark.parametrize("tree", (False, True), ids=("chain", "tree"))
def test_emits_the_ruled_distribution(name, tree):
    for filters, width, seed in ((PLAIN, 4, 1), (FILTERS["all"], 3, 2)):
        _compare(name, tree, filters, independent_choices, width, seed)


@pytest.mark.parametrize("tree", (False, True), ids=("chain", "tree"))
def test_one_random_number_per_position_is_enough_with_rules(tree):
    _compare("all", tree, FILTERS["top-p"], seeded_choices, 3, 4)


def test_a_rule_that_forgets_the_path_would_be_seen(monkeypatch):
    target = RuledTarget(3, 1, PLAIN, "frequency")
    draft = WatchedDraft(3, 4, False, 1)
    draft.target = NodesTarget(target, False)
    zero = lambda self, proposal: torch.zeros(1, 4, 4)  # noqa: E731
    monkeypatch.setattr("sglang_dflash.engine.verify.rules.penalties.Penalties._times_on_path", zero)
    with pytest.raises(AssertionError):
        assert_same(speculative_distribution(draft.target, draft, independent_choices), target.sequences(LENGTH))
