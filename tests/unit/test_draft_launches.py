"""What the parts of a draft pass launch on a GPU, ours and SGLang's own, counted without one.

SGLang's operators count as one launch each, and so do functions that torch compiles: what these come to is not known
here, but it is no less.
"""

from types import SimpleNamespace
from unittest import mock

import kinds
import pytest
import torch
from cuda_form import CUDA, cuda_form
from kinds import BLOCK, HIDDEN, KINDS, VOCAB
from sglang.srt.layers.rotary_embedding.factory import _ROPE_DICT
from sglang.srt.models import dflash
from test_config import config_class

from sglang_dflash.engine.draft import head
from sglang_dflash.engine.draft.head_norms import OneLaunch, Operators
from sglang_dflash.engine.draft.selector import GreedyTokens, SelectedPath

BS = 3
TOP_K = "radix top-k"


def top_k(rows, k, **kwargs):
    """In FlashInfer's place: one launch."""
    return torch.empty(len(rows), k, dtype=rows.dtype, device=CUDA), torch.empty(
        len(rows), k, dtype=torch.int64, device=CUDA
    )


def counting(launches, name: str, out):
    """A function that counts as one launch, whatever ``out`` takes to make its result."""

    def call(*args, **kwargs):
        before = launches.names.copy()
        result = out(*args, **kwargs)
        launches.names.clear()
        launches.names.update(before)
        launches.names[name] += 1
        return result

    return call


def built(name: str, launches, builtin: bool = False):
    """A draft of bfloat16 weights on the device; its norms, rotary embeddings, attention and activation are counted."""
    config = KINDS[name]
    # SGLang keeps rotary embeddings for the next model.
    with torch.device(CUDA), mock.patch.dict(_ROPE_DICT, clear=True):
        torch.set_default_dtype(torch.bfloat16)
        try:
            if builtin:
                theirs = getattr(dflash, config["architectures"][0])
                model = theirs(config_class(config["model_type"]).from_dict(dict(config)))
            else:
                model = kinds.built(config)
        finally:
            torch.set_default_dtype(torch.float32)
    for layer in model.layers:
        attention = layer.self_attn
        for norm in (layer.input_layernorm, layer.post_attention_layernorm, attention.q_norm, attention.k_norm):
            norm.forward = counting(launches, "norm", lambda x, *residual: (x, *residual) if residual else x)
        attention.rotary_emb.forward = counting(launches, "rope", lambda positions, q, k: (q, k))
        attention.attn.forward = counting(launches, "attention", lambda q, k, v, batch: torch.empty_like(q))
        layer.mlp.act_fn.forward = counting(launches, "activation", lambda x: x[:, : x.shape[1] // 2])
        if not builtin:
            layer.bind(BLOCK, "fa3")
    return model


def inputs(width: int = HIDDEN) -> tuple[torch.Tensor, torch.Tensor]:
    """-> hidden states and positions of ``BS`` blocks."""
    hidden = torch.empty(BS * BLOCK, width, dtype=torch.bfloat16, device=CUDA)
    return hidden, torch.empty(BS * BLOCK, dtype=torch.int64, device=CUDA)


@pytest.fixture
def launches():
    with cuda_form() as launches, kinds.single_rank():
        names = ("_grouped_conv", "_score_edges", "_follow_maps")
        eager = {name: getattr(dflash, name)._torchdynamo_orig_callable for name in names}
        compiled = {name: counting(launches, name, function) for name, function in eager.items()}
        with mock.patch.multiple(dflash, _flashinfer_top_k=counting(launches, TOP_K, top_k), **compiled):
            yield launches


@pytest.mark.parametrize("name", ["plain", "gemma norms", "mimo"])
def test_queries_and_keys_of_a_layer_take_one_launch(name, launches):
    attention = built(name, launches).layers[0].self_attn
    qkv, positions = inputs(attention.q_size + 2 * attention.kv_size)
    launches.names.clear()
    shapes = [x.shape for x in Operators(attention)(qkv, positions)]
    assert launches.total == 5  # two copies, two norms, the rotation
    launches.names.clear()
    assert [x.shape for x in OneLaunch(attention, "cuda")(qkv, positions)] == shapes
    assert launches.names == {"_qk_norm_rope_kernel": 1}


# Projections, norms, attention, activation; for DFlash 2 two more projections and four convolutions.
LAYERS = {"plain": 9, "dflash 2": 15, "dflash 2, beam": 15}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_takes_no_more_than_sglangs(name, launches):
    hidden, positions = inputs()
    counts = {}
    for builtin in (False, True):
        layer = built(name, launches, builtin).layers[1]
        residual, batch = torch.empty_like(hidden), SimpleNamespace()
        launches.names.clear()
        layer(positions, hidden, batch, residual) if builtin else layer(positions, hidden, residual, batch)
        counts[builtin] = launches.total
    assert counts[False] == LAYERS[name] <= counts[True]


def test_greedy_tokens(launches):
    """The rows behind the anchors, the product, the choice, the anchors in front."""
    hidden, ids = inputs()
    with mock.patch.object(head, "choose_top_k", lambda device_type: None):
        choose = GreedyTokens(head.WholeHead(torch.empty(VOCAB, HIDDEN, dtype=torch.bfloat16, device=CUDA)), BLOCK)
    launches.names.clear()
    assert choose(hidden, ids).shape == ids.shape
    assert launches.names == {"clone": 1, "mm": 1, "argmax": 1, "cat": 1}


@pytest.mark.parametrize("name", ["dflash 2", "dflash 2, beam"])
def test_a_selected_path_takes_no_more_than_sglangs(name, launches):
    hidden, ids = inputs()
    weight = torch.empty(VOCAB, HIDDEN, dtype=torch.bfloat16, device=CUDA)
    draft = built(name, launches)
    with mock.patch.object(head, "choose_top_k", lambda device_type: counting(launches, TOP_K, top_k)):
        choose = SelectedPath(head.WholeHead(weight), draft.candidate_selector, draft.draft_config, BLOCK)
    launches.names.clear()
    assert choose(hidden, ids).shape == ids.shape
    ours = launches.names.copy()
    assert ours == {"clone": 1, "mm": 2, TOP_K: 1, "_selected_path_kernel": 1}
    theirs = built(name, launches, builtin=True)
    theirs.lm_head = SimpleNamespace(weight=weight, org_vocab_size=VOCAB)
    launches.names.clear()
    builtin_path(theirs, hidden.view(BS, BLOCK, -1)[:, 1:], ids.view(BS, BLOCK)[:, 0])
    assert ours.total() <= launches.total


def builtin_path(model, hidden: torch.Tensor, anchors: torch.Tensor) -> None:
    """SGLang's proposal for hidden states [BS, B - 1, hidden], as its worker captures it."""
    ids, logits = model.compute_candidates(hidden.reshape(-1, HIDDEN))
    ids, logits = ids.view(BS, BLOCK - 1, -1), logits.view(BS, BLOCK - 1, -1)
    scores = model.candidate_selector.build_lattice(
        candidate_ids=ids, unary_logits=logits, hidden_states=hidden, anchor_token_ids=anchors
    )
    uniforms = torch.empty(BS, BLOCK - 1, device=CUDA)
    temperatures, greedy = torch.empty(BS, device=CUDA), torch.empty(BS, dtype=torch.bool, device=CUDA)
    model.candidate_selector.sample_path(
        candidate_ids=ids, scores=scores, uniforms=uniforms, temperatures=temperatures, greedy_mask=greedy
    )
