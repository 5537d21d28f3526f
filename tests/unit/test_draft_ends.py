"""The ends that a draft borrows from its target: embedding, mask embedding, head."""

import logging
import threading
from types import SimpleNamespace

import pytest
import torch
from rooms import one_rank

from sglang_dflash.engine.draft import mask
from sglang_dflash.engine.draft.embedding import build_embedding
from sglang_dflash.engine.draft.head import MappedHead, QuantisedHead, ShardedHead, WholeHead, build_head
from sglang_dflash.engine.draft.mask import load_mask_embedding
from sglang_dflash.errors import DFlashError
from sglang_dflash.host.model_api import get_parallel

VOCAB, HIDDEN = 24, 8


class Ranks:
    """A tensor-parallel group of threads: ``all_gather`` concatenates in rank order, as SGLang's does."""

    def __init__(self, world_size: int):
        self.world_size = world_size
        self._barrier = threading.Barrier(world_size)
        self._parts = [None] * world_size

    def group(self, rank: int) -> SimpleNamespace:
        def all_gather(part: torch.Tensor, dim: int) -> torch.Tensor:
            self._parts[rank] = part
            self._barrier.wait(timeout=30)
            gathered = torch.cat(self._parts, dim)
            self._barrier.wait(timeout=30)
            return gathered

        return SimpleNamespace(all_gather=all_gather, world_size=self.world_size)


def sharded(weight: torch.Tensor, hidden: torch.Tensor, world_size: int, ask=lambda head, hidden: head(hidden)) -> list:
    """Every rank's answer, the vocabulary split evenly."""
    ranks, step = Ranks(world_size), weight.shape[0] // world_size
    answers = [None] * world_size

    def run(rank: int) -> None:
        part = weight[rank * step : (rank + 1) * step]
        answers[rank] = ask(ShardedHead(part, rank * step, ranks.group(rank)), hidden)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def lowest_best(logits: torch.Tensor) -> list[int]:
    """Lowest id of the largest logit, row by row."""
    return [row.index(max(row)) for row in logits.tolist()]


@pytest.mark.parametrize("world_size", [2, 3])
def test_sharded_ranks_agree_with_the_whole_vocabulary(world_size):
    weight, hidden = torch.randn(VOCAB, HIDDEN), torch.randn(11, HIDDEN)
    expected = lowest_best(hidden @ weight.T)
    assert WholeHead(weight)(hidden).tolist() == expected
    for answer in sharded(weight, hidden, world_size):
        assert answer.dtype == torch.int64 and answer.tolist() == expected


@pytest.mark.parametrize("world_size", [2, 3])
def test_ties_go_to_the_lowest_id_across_ranks(world_size):
    # Small whole numbers: equal logits within a shard, in neighbouring shards, in the first and the last.
    torch.manual_seed(0)
    weight = torch.randint(-1, 2, (VOCAB, HIDDEN)).float()
    weight[VOCAB - 1] = weight[0]
    hidden = torch.randint(-1, 2, (200, HIDDEN)).float()
    logits = hidden @ weight.T
    assert (logits == logits.max(1, keepdim=True).values).sum(1).gt(1).any()
    expected = lowest_best(logits)
    assert WholeHead(weight)(hidden).tolist() == expected
    assert all(answer.tolist() == expected for answer in sharded(weight, hidden, world_size))


@pytest.mark.parametrize("world_size", [2, 3])
def test_sharded_candidates_are_those_of_the_whole_vocabulary(world_size):
    weight, hidden = torch.randn(VOCAB, HIDDEN), torch.randn(7, HIDDEN)
    logits, ids = WholeHead(weight).candidates(hidden, 5)
    order = (hidden @ weight.T).argsort(1, descending=True)[:, :5]
    assert ids.tolist() == order.tolist()
    torch.testing.assert_close(logits, (hidden @ weight.T).gather(1, order))
    for answer in sharded(weight, hidden, world_size, lambda head, hidden: head.candidates(hidden, 5)):
        torch.testing.assert_close(answer[0], logits)
        assert answer[1].tolist() == ids.tolist()


def test_a_head_over_a_part_of_the_vocabulary_answers_in_the_targets_ids():
    kept = torch.tensor([1, 4, 5, 17])
    weight, hidden = torch.randn(VOCAB, HIDDEN), torch.randn(9, HIDDEN)
    head = MappedHead(WholeHead(weight[kept]), kept)
    logits = (hidden @ weight.T)[:, kept]
    assert head(hidden).tolist() == kept[logits.argmax(1)].tolist()
    values, ids = head.candidates(hidden, 3)
    torch.testing.assert_close(values, (hidden @ weight.T).gather(1, ids))
    assert set(ids.flatten().tolist()) <= set(kept.tolist())


def test_the_hidden_state_takes_the_heads_dtype():
    weight, hidden = torch.randn(VOCAB, HIDDEN).bfloat16(), torch.randn(3, HIDDEN)
    assert WholeHead(weight)(hidden).tolist() == lowest_best(hidden.bfloat16() @ weight.T)


class CountingMethod:
    """A quantisation method of SGLang's shape, whose rows past the vocabulary are never to win."""

    def apply(self, layer, hidden, bias):
        assert bias is None
        return torch.cat((hidden @ layer.weight.T, torch.full((hidden.shape[0], 4), 1e9)), 1)


def target(**head) -> SimpleNamespace:
    return SimpleNamespace(lm_head=SimpleNamespace(**head))


def shard(first: int, count: int, added: int = 0) -> SimpleNamespace:
    return SimpleNamespace(num_org_elements=count, org_vocab_start_index=first, num_added_elements=added)


def built(target_model, world_size: int = 1):
    with one_rank(tp_group=SimpleNamespace(world_size=1)) if world_size == 1 else two_ranks():
        return build_head(target_model)


def two_ranks():
    from sglang_dflash.host.model_api import get_parallel

    return get_parallel().override(tp_size=2, tp_rank=1, tp_group=SimpleNamespace(world_size=2))


def test_the_head_follows_from_what_the_target_has():
    weight, hidden = torch.randn(VOCAB, HIDDEN), torch.randn(5, HIDDEN)
    expected = lowest_best(hidden @ weight.T)
    dense = built(target(weight=weight))
    assert isinstance(dense, WholeHead) and dense(hidden).tolist() == expected
    # Rows that pad the vocabulary never win.
    padded = torch.cat((weight, torch.full((8, HIDDEN), 1e9)))
    sliced = built(target(weight=padded, shard_indices=shard(0, VOCAB)))
    assert isinstance(sliced, WholeHead) and sliced(hidden).tolist() == expected
    quantised = built(target(weight=weight, quant_method=CountingMethod(), org_vocab_size=VOCAB))
    assert isinstance(quantised, QuantisedHead) and quantised(hidden).tolist() == expected
    wrapped = built(target(base_layer=SimpleNamespace(weight=weight)))
    assert isinstance(wrapped, WholeHead) and wrapped(hidden).tolist() == expected
    assert isinstance(built(target(weight=weight, shard_indices=shard(VOCAB, VOCAB)), 2), ShardedHead)


def test_candidates_of_a_quantised_head_are_none_of_its_padding():
    weight, hidden = torch.randn(VOCAB + 8, HIDDEN), torch.randn(5, HIDDEN)
    method = SimpleNamespace(apply=lambda layer, x, bias: x @ weight.T)
    head = QuantisedHead(SimpleNamespace(quant_method=method), VOCAB)
    logits, ids = head.candidates(hidden, VOCAB)
    wanted = (hidden @ weight[:VOCAB].T).topk(VOCAB)
    assert torch.equal(logits, wanted.values) and torch.equal(ids, wanted.indices)


@pytest.mark.parametrize(
    ("target_model", "world_size", "problem"),
    [
        (SimpleNamespace(), 1, "lm_head: of SimpleNamespace is not usable"),
        (target(weight=torch.zeros(4, 2, dtype=torch.uint8)), 1, "lm_head: of SimpleNamespace is not usable"),
        (target(weight=torch.zeros(4, 2), shard_indices=shard(0, 4, added=1)), 1, "lm_head: has added"),
        (
            target(weight=torch.zeros(4, 2), quant_method=CountingMethod(), org_vocab_size=4),
            2,
            "lm_head: is quantised and split",
        ),
    ],
)
def test_heads_that_a_draft_cannot_use_are_refused(target_model, world_size, problem):
    with pytest.raises(DFlashError, match=problem):
        built(target_model, world_size)


class Target:
    """A target with an embedding, and a scale where it has one."""

    def __init__(self, embed, scale=None):
        self.get_input_embeddings = lambda: embed
        if scale is not None:
            self.get_dflash_noise_embedding_scale = lambda: scale


def test_embedding_is_the_targets_unless_scaled_or_masked():
    table, row = torch.randn(VOCAB, HIDDEN), torch.randn(HIDDEN, dtype=torch.float64)
    ids = torch.tensor([3, 0, 5, 3, 23])

    def embed(ids):
        return table[ids]

    assert build_embedding(Target(embed), 3, None) is embed
    assert build_embedding(Target(embed, 1.0), 3, None) is embed
    wrapped = SimpleNamespace(base_layer=embed)
    assert build_embedding(Target(wrapped), 3, None) is embed
    scaled = build_embedding(Target(embed, 2.5), 3, None)
    assert torch.equal(scaled(ids), table[ids] * 2.5)
    masked = build_embedding(Target(embed), 3, row)(ids)
    assert masked.dtype == torch.float32
    assert torch.equal(masked[[0, 3]], row.float().expand(2, -1)) and torch.equal(masked[1:3], table[[0, 5]])
    # A trained row takes the token's place before the target's scale is applied.
    assert torch.equal(build_embedding(Target(embed, 2.0), 3, row)(ids), 2 * masked)


def test_mask_embedding_is_read_and_checked(tmp_path):
    with one_rank():
        _read_and_check_the_mask_embedding(tmp_path)


def _read_and_check_the_mask_embedding(tmp_path):
    assert load_mask_embedding(str(tmp_path), 3, torch.device("cpu")) is None
    row = torch.randn(HIDDEN)
    path = tmp_path / "mask_embedding.pt"
    torch.save({"embedding": row, "mask_token_id": 3}, path)
    assert torch.equal(load_mask_embedding(str(tmp_path), 3, torch.device("cpu")), row)
    with pytest.raises(DFlashError, match="is for mask token 3, not 4"):
        load_mask_embedding(str(tmp_path), 4, torch.device("cpu"))
    torch.save({"embedding": row.expand(4, -1), "mask_token_id": 3, "per_position": True}, path)
    with pytest.raises(DFlashError, match="a vector per position"):
        load_mask_embedding(str(tmp_path), 3, torch.device("cpu"))


def test_the_log_says_once_which_mask_row_is_used(monkeypatch, caplog, tmp_path):
    caplog.set_level(logging.INFO, "sglang_dflash")
    asked = []

    def find(source, revision):
        asked.append((source, revision))
        return None if revision is None else tmp_path / "mask_embedding.pt"

    monkeypatch.setattr(mask, "mask_embedding_file", find)
    torch.save({"embedding": torch.ones(HIDDEN), "mask_token_id": 3}, tmp_path / "mask_embedding.pt")
    for rank in (0, 1):
        with get_parallel().override(tp_rank=rank):
            assert load_mask_embedding("org/draft", 3, torch.device("cpu"), "v2").tolist() == [1.0] * HIDDEN
            assert load_mask_embedding("org/draft", 3, torch.device("cpu")) is None
    assert asked == [("org/draft", "v2"), ("org/draft", None)] * 2
    assert caplog.messages == [
        f"sglang-dflash: mask token 3 is embedded by {tmp_path / 'mask_embedding.pt'}",
        "sglang-dflash: mask token 3 is embedded by the embedding's own row",
    ]
