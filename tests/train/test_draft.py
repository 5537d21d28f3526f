"""Draft network, labels and replay against plain, slow oracles."""

import math

import pytest
import torch
from conftest import scramble, small_shape

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.train.blocks import decay_weights, greedy_labels, make_blocks, sample_anchors
from sglang_dflash.tools.train.draft_io import check_taps, default_taps, draft_config, load_draft, save_draft
from sglang_dflash.tools.train.draft_model import DraftNetwork, block_attention
from sglang_dflash.tools.train.frozen import LeanTarget
from sglang_dflash.tools.train.model import TinyQwen3
from sglang_dflash.tools.train.packing import Batch, collate
from sglang_dflash.tools.train.replay import Rounds, replay


def test_block_attention_against_loops():
    torch.manual_seed(0)
    b, heads, kv, anchors, size, d, s = 2, 4, 2, 3, 5, 8, 7
    q = torch.randn(b, heads, anchors * size, d)
    k, v = torch.randn(2, b, kv, anchors * size, d)
    keys, values = torch.randn(2, b, kv, s, d)
    seen = torch.rand(b, anchors, s) < 0.6
    bias = torch.zeros(seen.shape).masked_fill_(~seen, -math.inf)
    out = block_attention(q, k, v, keys, values, bias, anchors, size).view(b, anchors * size, heads, d)
    for r in range(b):
        for h in range(heads):
            g = h // (heads // kv)
            for a in range(anchors):
                own = slice(a * size, (a + 1) * size)
                key = torch.cat((keys[r, g][seen[r, a]], k[r, g, own]))
                value = torch.cat((values[r, g][seen[r, a]], v[r, g, own]))
                expected = (q[r, h, own] @ key.T / d**0.5).softmax(-1) @ value
                torch.testing.assert_close(out[r, own, h], expected, atol=1e-5, rtol=1e-5)


def random_batch(seed, rows=3, length=14, vocab=4):
    generator = torch.Generator().manual_seed(seed)
    packed = []
    for _ in range(rows):
        documents = []
        for n in (6, 7):
            ids = torch.randint(vocab, (n,), generator=generator).tolist()
            documents.append((ids, [False, False] + [True] * (n - 2)))
        packed.append(documents)
    return collate(packed, length, 0)


def test_labels_against_plain_python():
    size = 5
    for seed in range(20):
        batch = random_batch(seed)
        best = torch.randint(4, batch.ids.shape, generator=torch.Generator().manual_seed(seed + 100))
        anchors = sample_anchors(batch, 4, torch.Generator().manual_seed(seed))
        labels, valid = greedy_labels(batch, best, anchors, size)
        for r in range(anchors.shape[0]):
            for a, p in enumerate(anchors[r].tolist()):
                assert batch.answer[r, p]
                greedy = True
                for k in range(size - 1):
                    at = p + k + 1
                    exists = at < 14 and batch.doc[r, at] == batch.doc[r, p] and bool(batch.answer[r, at])
                    assert bool(valid[r, a, k]) == (greedy and exists)
                    if greedy and exists:
                        assert labels[r, a, k] == best[r, at - 1]
                        greedy = batch.ids[r, at] == best[r, at - 1]
                    else:
                        greedy = False


def test_blocks_see_only_their_own_past():
    batch = random_batch(1)
    anchors = sample_anchors(batch, 5, torch.Generator().manual_seed(1))
    blocks = make_blocks(batch, batch.ids, anchors, 4, mask_id=3)
    for r in range(3):
        for a, p in enumerate(anchors[r].tolist()):
            expected = [j < p and bool(batch.doc[r, j] == batch.doc[r, p]) for j in range(14)]
            assert blocks.seen[r, a].tolist() == expected
            assert blocks.ids[r, a].tolist() == [batch.ids[r, p], 3, 3, 3]
            assert blocks.positions[r, a].tolist() == [int(batch.positions[r, p]) + i for i in range(4)]


def test_anchors_survive_a_row_without_answers():
    batch = random_batch(1)
    empty = Batch(batch.ids, batch.positions, batch.doc, torch.zeros_like(batch.answer))
    anchors = sample_anchors(empty, 4, torch.Generator().manual_seed(0))
    assert not make_blocks(empty, batch.ids, anchors, 4, 3).valid.any()


class Toy(LeanTarget):
    """A random target of a few words, so that a random draft is right now and then."""

    def __init__(self, vocab):
        self.model = TinyQwen3(small_shape(vocab)).requires_grad_(False)
        scramble(self.model, 3)


def batch_one_loop(target, draft, prompt, taps, size, mask_id, end, max_new):
    """The method itself: draft, verify with the target, accept, until the end id."""

    def best(ids):
        x = torch.tensor([ids])
        batch = collate([[(ids, [False] * len(ids))]], len(ids), 0)
        seen = target.observe(batch, taps)
        return seen.features, seen.best[0].tolist(), x

    text = list(prompt)
    _, choice, _ = best(text)
    text.append(choice[-1])
    commits = []
    while text[-1] != end and len(text) < len(prompt) + max_new:
        features, _, _ = best(text[:-1])
        block = torch.tensor([[[text[-1]] + [mask_id] * (size - 1)]])
        positions = torch.arange(len(text) - 1)[None]
        where = (len(text) - 1 + torch.arange(size))[None, None]
        seen = torch.ones(1, 1, len(text) - 1, dtype=torch.bool)
        hidden = draft(features, positions, target.embed(block), where, seen)
        proposed = target.head(hidden[0, 0, 1:]).argmax(-1).tolist()
        _, choice, _ = best(text + proposed)
        commit = []
        for k in range(size):
            commit.append(choice[len(text) - 1 + k])
            if commit[-1] == end or k == size - 1 or commit[-1] != proposed[k]:
                break
        commit = commit[: len(prompt) + max_new - len(text)]
        text += commit
        commits.append(len(commit))
    return text[len(prompt) :], commits


@torch.no_grad()
def test_replay_equals_the_batch_one_loop():
    vocab, size, taps = 3, 5, [0, 2]
    target = Toy(vocab)
    draft = DraftNetwork(small_shape(vocab, 2), 2)
    scramble(draft, 5)
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(vocab, (n,), generator=generator).tolist() for n in (3, 5, 8, 13, 4, 6)]
    replies = target.generate(prompts, end=vocab, max_new=30)
    documents = [(p + r, [False] * len(p) + [True] * len(r)) for p, r in zip(prompts, replies, strict=True)]
    rounds = replay(target, draft, documents, taps, size, 2, rows=4)
    looped = [batch_one_loop(target, draft, p, taps, size, 2, vocab, 30) for p in prompts]
    assert [text for text, _ in looped] == replies
    assert sorted(rounds.commit_lens) == sorted(commits for _, commits in looped)
    assert len({n for lens in rounds.commit_lens for n in lens}) > 2
    assert sum(rounds.kept) + len([n for lens in rounds.commit_lens for n in lens]) >= sum(map(len, replies)) - 6


@torch.no_grad()
def test_same_hidden_states_as_the_reference_package(tmp_path):
    dflash = pytest.importorskip("dflash")
    shape, size, context = small_shape(40, 2), 6, 9
    network = DraftNetwork(shape, 3)
    scramble(network)
    save_draft(tmp_path, network, draft_config(shape, 6, [0, 2, 4], size, 7, 2048))
    reference = dflash.DFlashDraftModel.from_pretrained(tmp_path).eval()
    torch.manual_seed(1)
    features, block = torch.randn(1, context, 3 * 32), torch.randn(1, 1, size, 32)
    positions = torch.arange(context + size)[None]
    ours = network(
        features,
        positions[:, :context],
        block,
        positions[:, None, context:],
        torch.ones(1, 1, context, dtype=torch.bool),
    )
    theirs = reference(position_ids=positions, noise_embedding=block[:, 0], target_hidden=features)
    torch.testing.assert_close(ours[0], theirs, atol=2e-5, rtol=1e-4)


def test_rounds_add_up():
    one, two = Rounds([[2, 3]], [4, 2], [4, 1], [2, 1]), Rounds([[1]], [1, 1], [1, 0], [0, 0])
    one.merge(two)
    assert one.accept_length() == 2 and one.offered == [5, 3] and one.kept == [2, 1] and one.reached == [5, 1]


def test_decay_falls_with_the_position():
    weights = decay_weights(16, 7.0)
    assert weights.shape == (15,) and weights[0] == 1 and weights[7] == pytest.approx(math.exp(-1))


def test_taps_can_be_captured():
    assert default_taps(8, 4) == [0, 2, 4, 6]
    assert default_taps(36, 5)[-1] <= 34
    for bad in ([7], [2, 1], [1, 1], [-1], []):
        with pytest.raises(DFlashError, match="target_layer_ids"):
            check_taps(bad, 8)
    with pytest.raises(DFlashError, match="taps"):
        default_taps(3, 5)


def test_checkpoint_round_trip_and_sglang_reads_it(tmp_path):
    shape = small_shape(40, 2)
    network = DraftNetwork(shape, 3)
    scramble(network)
    save_draft(tmp_path, network, draft_config(shape, 6, [0, 2, 4], 16, 7, 2048))
    again, config = load_draft(tmp_path)
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    parser = pytest.importorskip("sglang.srt.speculative.dflash_utils")
    from transformers import AutoConfig

    parsed = parser.parse_dflash_draft_config(draft_hf_config=AutoConfig.from_pretrained(tmp_path))
    assert parsed.target_layer_ids == [0, 2, 4] and parsed.mask_token_id == 7
    assert parsed.resolve_block_size() == 16 and config["num_target_layers"] == 6
