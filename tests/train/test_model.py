"""The lean network is Hugging Face's Qwen3, and batched decoding is one-by-one decoding."""

import torch

from sglang_dflash.tools.pair.tokenizer import PAD
from sglang_dflash.tools.train.decode import greedy
from sglang_dflash.tools.train.frozen import HubTarget, LeanTarget, open_target
from sglang_dflash.tools.train.measure import exact_share
from sglang_dflash.tools.train.muon import orthogonalise
from sglang_dflash.tools.train.networks import LeanNetwork
from sglang_dflash.tools.train.packing import collate

PROMPTS = [[1, 20, 30, 3, 2], [1, 40, 3, 2], [1, 50, 60, 70, 80, 90, 3, 2]]


def test_same_logits_and_features_as_transformers(tiny_target):
    lean, hub = open_target(str(tiny_target)), HubTarget(str(tiny_target))
    assert isinstance(lean, LeanTarget)
    documents = [(p, [False] * len(p)) for p in PROMPTS]
    batch = collate([[d] for d in documents], 8, PAD)
    ours, theirs = lean.observe(batch, [0, 2]), hub.observe(batch, [0, 2])
    real = batch.doc >= 0
    torch.testing.assert_close(ours.features[real], theirs.features[real], atol=1e-4, rtol=1e-4)
    assert torch.equal(ours.best[real], theirs.best[real])
    torch.testing.assert_close(lean.embed(batch.ids), hub.embed(batch.ids))
    hidden = torch.randn(3, 32)
    torch.testing.assert_close(lean.head(hidden), hub.head(hidden))


def test_batched_greedy_equals_transformers_generate(tiny_target):
    lean, hub = open_target(str(tiny_target)), HubTarget(str(tiny_target))
    end = hub.generate(PROMPTS[:1], 3, 6)[0][4]  # an id that does occur, so that one row ends early
    together = lean.generate(PROMPTS, end, 24)
    assert together == hub.generate(PROMPTS, end, 24)
    assert together == [greedy(lean.model, [p], end, 24)[0] for p in PROMPTS]
    assert len({len(reply) for reply in together}) > 1


def test_exact_share_is_greedy_equality(tiny_target):
    lean = open_target(str(tiny_target))
    replies = lean.generate(PROMPTS, 3, 9)
    documents = [(p + r, [False] * len(p) + [True] * len(r)) for p, r in zip(PROMPTS, replies, strict=True)]
    network = LeanNetwork(lean.model.shape)
    network.module.load_state_dict(lean.model.state_dict())
    assert exact_share(network, documents, PAD) == 1.0
    documents[0][0][-1] ^= 1
    assert exact_share(network, documents, PAD) == 2 / 3


def test_orthogonalised_matrices_have_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((3, 16, 40), (2, 40, 16)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.min() > 0.6 and values.max() < 1.3
