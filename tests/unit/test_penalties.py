"""Penalties at every node equal those of SGLang's own penalizers after the node's path, round after round."""

import random
from types import SimpleNamespace

import pytest
import torch
from host_requests import Request, batch_of
from sglang.srt.sampling.penaltylib import (
    BatchedFrequencyPenalizer,
    BatchedMinNewTokensPenalizer,
    BatchedPenalizerOrchestrator,
    BatchedPresencePenalizer,
    BatchedRepetitionPenalizer,
)

from sglang_dflash.engine.verify.rules import build_rules
from sglang_dflash.engine.verify.rules.penalties import Penalties
from sglang_dflash.types import Proposal, empty_acceptance

VOCAB, WIDTH = 6, 7
CPU = torch.device("cpu")
# One kind each, for SGLang applies them in an order that differs from process to process; and two that commute.
SAMPLING = (
    {"frequency_penalty": 0.75},
    {"presence_penalty": -1.25},
    {"repetition_penalty": 1.5},
    {"min_new_tokens": 9, "stop_token_ids": [4]},
    {},
    {"frequency_penalty": -0.5, "presence_penalty": 0.25, "min_new_tokens": 3, "stop_token_ids": [1, 2]},
    {"repetition_penalty": 0.5, "min_new_tokens": 6},
)
EOS = (5,)


class Scheduled(SimpleNamespace):
    """May be referred to weakly."""


def sglangs_own(req: Request, emitted: list[int], logits: torch.Tensor) -> torch.Tensor:
    """``logits`` [V] as SGLang's penalizers leave them after ``emitted``."""
    batch = Scheduled()
    batch.device, batch.reqs = "cpu", [req]
    req.tokenizer = SimpleNamespace(additional_stop_token_ids=None, eos_token_id=None)
    kinds = [BatchedFrequencyPenalizer, BatchedPresencePenalizer, BatchedMinNewTokensPenalizer]
    orchestrator = BatchedPenalizerOrchestrator(VOCAB, batch, [*kinds, BatchedRepetitionPenalizer])
    for token in emitted:
        orchestrator.cumulate_output_tokens(torch.tensor([token]))
    row = logits.clone().unsqueeze(0)
    orchestrator.accumulate_additive_penalties(row)
    scale = orchestrator.accumulate_scaling_penalties()
    return (row if scale is None else torch.where(row < 0, row * scale, row / scale))[0]


def propose(rng: random.Random, requests, tree: bool) -> Proposal:
    tokens = [[req.output_ids[-1]] + [rng.randrange(VOCAB) for _ in range(WIDTH - 1)] for req in requests]
    if tree:
        parents = [[-1] + [rng.randrange(node) for node in range(1, WIDTH)] for _ in requests]
    else:
        parents = [list(range(-1, WIDTH - 1)) for _ in requests]
    depths = [[len(path_to(row, node)) for node in range(WIDTH)] for row in parents]
    prefix = torch.tensor([req.prefix_len for req in requests])
    shape = torch.tensor(parents, dtype=torch.int32) if tree else None
    return Proposal(torch.tensor(tokens), shape, prefix.unsqueeze(1) + torch.tensor(depths)), parents


def path_to(parents: list[int], node: int) -> list[int]:
    """Nodes after the anchor, the last one ``node``."""
    return [] if node == 0 else [*path_to(parents, parents[node]), node]


def accepted_on(rng: random.Random, tokens, parents):
    """A random path of each request and a bonus token, and what each emits."""
    accepted, emissions = empty_acceptance(len(parents), WIDTH, CPU), []
    accepted.emitted.zero_()
    for row, (own, shape) in enumerate(zip(tokens.tolist(), parents, strict=True)):
        emitted = [own[node] for node in path_to(shape, rng.randrange(WIDTH))] + [rng.randrange(VOCAB)]
        accepted.emitted[row, : len(emitted)] = torch.tensor(emitted)
        accepted.commit_lens[row] = len(emitted)
        emissions.append(emitted)
    return accepted, emissions


@pytest.mark.parametrize("tree", (False, True), ids=("chain", "tree"))
@pytest.mark.parametrize("lag", (False, True), ids=("host knows", "host is a round behind"))
def test_every_node_of_every_round(tree, lag):
    """The host sees an emission a round late, or at once; requests leave, join and are retracted."""
    rng = random.Random(7)
    torch.manual_seed(7)
    rule = Penalties(VOCAB, CPU)
    emitted: dict[Request, list[int]] = {}
    running, compared = [], 0
    for _ in range(25):
        if len(running) < 5:
            joins = [Request([1, 2, 3], eos=EOS, **rng.choice(SAMPLING)) for _ in range(3)]
            prefill(rng, rule, joins, emitted, running)
        requests = list(running)
        known = {req: list(emitted[req]) for req in requests}
        proposal, parents = propose_for(rng, requests, known, tree)
        batch, logits = batch_of(requests), torch.randn(len(requests), WIDTH, VOCAB)
        batch.seq_lens = torch.tensor([3 + len(known[req]) - 1 for req in requests])
        changed = logits.clone()
        rule.apply(changed, batch, proposal)
        for row, req in enumerate(requests):
            for node in range(WIDTH):
                path = [int(proposal.tokens[row, step]) for step in path_to(parents[row], node)]
                wanted = sglangs_own(req, known[req] + path, logits[row, node])
                torch.testing.assert_close(changed[row, node], wanted)
                compared += 1
        accepted, emissions = accepted_on(rng, proposal.tokens, parents)
        rule.commit(batch, accepted)
        for req, more in zip(requests, emissions, strict=True):
            seen = emitted[req] if lag else emitted[req] + more
            emitted[req] = emitted[req] + more
            del req.output_ids[:]
            req.output_ids.extend(seen)
        leaving = rng.choice(requests)
        running.remove(leaving)
        if rng.random() < 0.5:  # retracted: the host knows all by the time it is prefilled again
            del leaving.output_ids[:]
            leaving.output_ids.extend(emitted[leaving])
            prefill(rng, rule, [leaving], emitted, running)
    assert compared > 500
    assert rule._counts._table.shape[0] <= 16, "rows are given back"


def propose_for(rng, requests, known, tree):
    now = [SimpleNamespace(output_ids=known[req], prefix_len=3 + len(known[req]) - 1) for req in requests]
    return propose(rng, now, tree)


def prefill(rng, rule, requests, emitted, running) -> None:
    """What SGLang's sampler gets for the next token, checked; then that token, after a chunk whose token is dropped."""
    for chunks_left in (1, 0):
        batch = batch_of(requests)
        batch.seq_lens = torch.tensor([3 + len(req.output_ids) - chunks_left for req in requests])
        rule.before_prefill(batch)
        info, logits = batch.sampling_info, torch.randn(len(requests), VOCAB)
        scale = info.acc_scaling_penalties
        got = logits + info.acc_additive_penalties
        got = got if scale is None else torch.where(got < 0, got * scale, got / scale)
        if not chunks_left:
            for row, req in enumerate(requests):
                torch.testing.assert_close(got[row], sglangs_own(req, list(req.output_ids), logits[row]))
        tokens = [rng.randrange(VOCAB) for _ in requests]
        rule.after_prefill(batch, torch.tensor(tokens, dtype=torch.int32))
    for req, token in zip(requests, tokens, strict=True):
        emitted[req] = [*req.output_ids, token]
        running.append(req)


def test_a_decoding_request_keeps_its_counts_in_a_mixed_prefill():
    """The host may not know the token that it continues from."""
    rule = Penalties(VOCAB, CPU)
    one, other = Request([1], frequency_penalty=1.0), Request([1, 2], presence_penalty=1.0)
    rule.before_prefill(batch_of([one]))
    rule.after_prefill(batch_of([one]), torch.tensor([3]))
    mixed = batch_of([other, one])
    mixed.decoding_reqs = [one]
    rule.before_prefill(mixed)
    assert mixed.sampling_info.acc_additive_penalties.tolist() == [[0] * 6, [0, 0, 0, -1, 0, 0]]
    rule.after_prefill(mixed, torch.tensor([0, 3]))
    rule.before_prefill(mixed)
    assert mixed.sampling_info.acc_additive_penalties.tolist() == [[0] * 6, [0, 0, 0, -2, 0, 0]]


def test_a_least_length_alone_needs_no_counts():
    rule = Penalties(VOCAB, CPU)
    batch = batch_of([Request([1, 2], min_new_tokens=3, stop_token_ids=[4])])
    rule.before_prefill(batch)
    assert batch.sampling_info.acc_additive_penalties[0, 4] == -torch.inf
    assert torch.isfinite(batch.sampling_info.acc_additive_penalties).sum() < VOCAB
    rule.after_prefill(batch, torch.tensor([3]))


def test_only_batches_with_a_penalty_want_the_rule():
    info = SimpleNamespace(acc_additive_penalties=None, logit_bias=None, has_custom_logit_processor=False)
    rules = build_rules(VOCAB, CPU)
    assert rules.of(SimpleNamespace(sampling_info=None)) == rules.of(SimpleNamespace(sampling_info=info)) == ()
    info.acc_additive_penalties = torch.zeros(1, VOCAB)
    assert [type(rule) for rule in rules.of(SimpleNamespace(sampling_info=info))] == [Penalties]
