"""A verify pass's logits in shards of the vocabulary: greedy choices gather no rows; whole rows where wanted."""

import threading
from types import SimpleNamespace

import pytest
import torch
from sglang.srt.layers.logits_processor import LogitsProcessor
from sglang.srt.model_executor.forward_batch_info import ForwardMode
from test_draft_ends import Ranks

from sglang_dflash.host.logits_api import CappedLogits, ShardedLogits, WholeLogits, verify_logits

ROWS = 40


class Processor(LogitsProcessor):
    """SGLang's, as far as the gather of logits goes; the head's product is its input."""

    def __init__(self, vocab_size: int, gather, **more):
        torch.nn.Module.__init__(self)
        self.vocab_size, self._logits_gatherer = vocab_size, gather
        self.use_attn_tp_group = self.use_tp_lm_head_all_to_all = False
        self.do_tensor_parallel_all_gather, self.do_tensor_parallel_all_gather_dp_attn = True, False
        self.final_logit_softcapping, self.defer_verify_gather = None, False
        vars(self).update(more)

    def _get_logits(self, hidden_states, lm_head, logits_metadata):
        return self._logits_gatherer(hidden_states).float()


def on_every_rank(world_size: int, vocab_size: int, logits: torch.Tensor, ask) -> list:
    """ask(sharded, shard of ``logits`` from a verify pass, its processor), rank by rank; bytes gathered come along."""
    ranks, step = Ranks(world_size), -(-vocab_size // world_size)
    padded = torch.nn.functional.pad(logits, (0, world_size * step - vocab_size), value=99.0)
    answers, gathered = [None] * world_size, [0] * world_size

    def run(rank: int) -> None:
        group = ranks.group(rank)
        group.rank_in_group = rank

        def all_gather(part, dim, inner=group.all_gather):
            gathered[rank] += part.numel() * part.element_size() * world_size
            return inner(part, dim)

        group.all_gather = all_gather
        processor = Processor(vocab_size, lambda part: group.all_gather(part, 1))
        sharded = ShardedLogits(processor, group)
        shard = padded[:, rank * step : (rank + 1) * step]
        metadata = SimpleNamespace(forward_mode=ForwardMode.TARGET_VERIFY)
        answers[rank] = ask(sharded, processor._get_logits(shard, None, metadata), processor)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert None not in answers
    return list(zip(answers, gathered, strict=True))


@pytest.mark.parametrize(("world_size", "vocab_size"), [(2, 20), (3, 20), (4, 21), (4, 9)])
def test_greedy_tokens_are_those_of_whole_rows_and_rows_are_not_gathered(world_size, vocab_size):
    # Few values: equal ones within a shard and across shards. What pads the last shard is larger than all.
    logits = torch.randint(-3, 3, (ROWS, vocab_size), dtype=torch.float32)
    wanted = [row.index(max(row)) for row in logits.tolist()]
    for got, gathered in on_every_rank(world_size, vocab_size, logits, lambda s, shard, _: s.argmax(shard)):
        assert got.dtype == torch.int64 and got.tolist() == wanted
        # A number and a token a row and rank, whatever the vocabulary.
        assert gathered == ROWS * world_size * (4 + 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whole_rows_are_the_heads_numbers(dtype):
    logits = torch.randn(ROWS, 21).to(dtype)
    for got, gathered in on_every_rank(2, 21, logits, lambda s, shard, _: s.whole(shard)):
        assert got.dtype == torch.float32 and torch.equal(got, logits.float())
        # In the head's own format, as SGLang gathers it.
        assert gathered == ROWS * 22 * logits.element_size()


def test_other_passes_are_gathered_as_ever():
    logits = torch.randn(ROWS, 20)

    def prefill(sharded, shard, processor):
        return processor._get_logits(shard, None, SimpleNamespace(forward_mode=ForwardMode.EXTEND))

    assert all(torch.equal(got, logits) for got, _ in on_every_rank(2, 20, logits, prefill))


def test_what_reads_a_targets_logits():
    def chosen(world_size=2, processors=1, **more):
        target = torch.nn.ModuleList(Processor(20, None, **more) for _ in range(processors))
        return verify_logits(target, SimpleNamespace(world_size=world_size, rank_in_group=0))

    assert isinstance(chosen(), ShardedLogits) and chosen().shards == 2
    assert isinstance(chosen(final_logit_softcapping=30.0), CappedLogits)
    for whole in (
        chosen(world_size=1),
        chosen(processors=2),
        chosen(use_attn_tp_group=True),
        chosen(use_tp_lm_head_all_to_all=True),
        chosen(do_tensor_parallel_all_gather=False),
    ):
        assert isinstance(whole, WholeLogits)


def test_capped_logits_are_put_off_by_sglang_itself():
    processor = Processor(20, None, final_logit_softcapping=30.0)
    capped = CappedLogits(processor, SimpleNamespace(world_size=2))
    assert processor.defer_verify_gather
    processor.deferred_argmax = lambda shard: "tokens"
    processor.finish_deferred_gather = lambda shard: "rows"
    assert (capped.argmax(torch.zeros(3, 10)), capped.whole(torch.zeros(3, 10))) == ("tokens", "rows")
    rows = torch.eye(3, 20)
    assert capped.argmax(rows).tolist() == [0, 1, 2] and capped.whole(rows) is rows
