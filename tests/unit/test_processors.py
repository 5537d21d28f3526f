"""Custom logit processors see every node as if its path had been emitted, whether or not the host knows the rest."""

import random
from types import SimpleNamespace

import pytest
import torch
from host_requests import Request
from sglang.srt.sampling.custom_logit_processor import (
    DeepseekOCRNoRepeatNGramLogitProcessor,
    DisallowedTokensLogitsProcessor,
)
from sglang.srt.sampling.sampling_batch_info import ProcessorEntry, SamplingBatchInfo

from sglang_dflash.engine.verify.rules.processors import Processors, RequestAtNode
from sglang_dflash.types import Proposal, empty_acceptance

VOCAB, WIDTH = 5, 6
NGRAM = {"ngram_size": 2, "window_size": 50}


def batch_of(requests, seq_lens, processors) -> SimpleNamespace:
    """A scheduler's batch; processors: {processor: its rows}."""
    bs = len(requests)
    info = SamplingBatchInfo(
        temperatures=torch.ones(bs, 1),
        top_ps=torch.ones(bs),
        top_ks=torch.ones(bs, dtype=torch.int32),
        min_ps=torch.zeros(bs),
        is_all_greedy=True,
        is_any_greedy=True,
        need_top_p_sampling=False,
        need_top_k_sampling=False,
        need_min_p_sampling=False,
        vocab_size=VOCAB,
        device="cpu",
        has_custom_logit_processor=True,
        custom_params=[req.sampling_params.custom_params for req in requests],
        custom_logit_processor={
            key: ProcessorEntry(processor, rows, torch.tensor(rows))
            for key, (processor, rows) in enumerate(processors.items())
        },
    )
    return SimpleNamespace(reqs=requests, seq_lens=torch.tensor(seq_lens), sampling_info=info, decoding_reqs=None)


def asking(prompt, output, params) -> Request:
    req = Request(prompt, output)
    req.sampling_params.custom_params = params | {"__req__": req}
    return req


def banned_after(context: list[int]) -> set[int]:
    """Second tokens of pairs that begin with the last one."""
    return {b for a, b in zip(context[:-1], context[1:], strict=True) if a == context[-1]}


def path_to(parents: list[int], node: int) -> list[int]:
    return [] if node == 0 else [*path_to(parents, parents[node]), node]


@pytest.mark.parametrize("tree", (False, True), ids=("chain", "tree"))
@pytest.mark.parametrize("lag", (False, True), ids=("host knows", "host is a round behind"))
def test_no_pair_is_repeated_at_any_node(tree, lag):
    rng = random.Random(3)
    rule, processor = Processors(), DeepseekOCRNoRepeatNGramLogitProcessor()
    requests = [asking([1, 2], [], NGRAM), Request([3]), asking([0, 4, 0], [], NGRAM)]
    prefill = batch_of(requests, [2, 1, 3], {processor: [0, 2]})
    rule.before_prefill(prefill)
    rule.after_prefill(prefill, torch.tensor([1, 2, 4]))
    emitted = [[1], [2], [4]]
    for _ in range(6):
        for req, own in zip(requests, emitted, strict=True):
            if not lag:
                del req.output_ids[:]
                req.output_ids.extend(own)
        prefix = [len(req.origin_input_ids) + len(own) - 1 for req, own in zip(requests, emitted, strict=True)]
        batch = batch_of(requests, prefix, {processor: [0, 2]})
        parents = [[-1] + [rng.randrange(node) if tree else node - 1 for node in range(1, WIDTH)] for _ in requests]
        tokens = [[own[-1]] + [rng.randrange(VOCAB) for _ in range(WIDTH - 1)] for own in emitted]
        shape = torch.tensor(parents, dtype=torch.int32) if tree else None
        logits = torch.zeros(3, WIDTH, VOCAB)
        rule.apply(logits, batch, Proposal(torch.tensor(tokens), shape, torch.zeros(3, WIDTH)))
        for row, req in enumerate(requests):
            for node in range(WIDTH):
                path = [tokens[row][step] for step in path_to(parents[row], node)]
                banned = banned_after([*req.origin_input_ids, *emitted[row], *path]) if row != 1 else set()
                assert {i for i, x in enumerate(logits[row, node].tolist()) if x < 0} == banned
        accepted = empty_acceptance(3, WIDTH, "cpu")
        accepted.emitted.zero_()
        for row, own in enumerate(emitted):
            more = [rng.randrange(VOCAB) for _ in range(rng.randint(1, WIDTH))]
            accepted.emitted[row, : len(more)], accepted.commit_lens[row] = torch.tensor(more), len(more)
            del requests[row].output_ids[:]
            requests[row].output_ids.extend(own)  # one emission late
            own += more
        rule.commit(batch, accepted)


def test_a_mixed_prefill_knows_what_a_decoding_request_emitted_last():
    rule, processor = Processors(), DeepseekOCRNoRepeatNGramLogitProcessor()
    decoding, joining = asking([1, 2, 1], [3], NGRAM), asking([0, 1, 0], [], NGRAM)
    round_ = batch_of([decoding], [3], {processor: [0]})
    accepted = empty_acceptance(1, WIDTH, "cpu")
    accepted.emitted[0, :2], accepted.commit_lens[0] = torch.tensor([4, 1]), 2
    rule.commit(round_, accepted)
    mixed = batch_of([joining, decoding], [3, 6], {processor: [0, 1]})
    rule.before_prefill(mixed)
    seen = [list(params["__req__"].output_ids) for params in mixed.sampling_info.custom_params]
    assert seen == [[], [3, 4, 1]]


def test_nothing_is_copied_from_the_device_for_processors_that_do_not_look():
    class Unreadable:
        """A batch's tensor that must not be read."""

        def __add__(self, other):
            return self

    rule, req = Processors(), asking([1, 2], [], {"token_ids": [3]})
    batch = batch_of([req], [2], {DisallowedTokensLogitsProcessor(): [0]})
    batch.seq_lens = Unreadable()
    logits = torch.zeros(1, WIDTH, VOCAB)
    rule.apply(logits, batch, Proposal(torch.zeros(1, WIDTH, dtype=torch.int64), None, None))
    assert logits[0].tolist() == [[0, 0, 0, -float("inf"), 0]] * WIDTH


def test_a_request_at_a_node_is_the_request_otherwise():
    req = Request([1, 2], [3])
    node = RequestAtNode(req, lambda: [4, 5])
    assert list(node.output_ids) == [3, 4, 5] and list(node.origin_input_ids + node.output_ids) == [1, 2, 3, 4, 5]
    assert node.sampling_params is req.sampling_params and node.rid == req.rid
