"""What the parts of a draft pass launch on a GPU, counted without one; SGLang's operators count as one launch each."""

from types import SimpleNamespace
from unittest import mock

import kinds
import pytest
import torch
from cuda_form import CUDA, cuda_form
from kinds import BLOCK, HIDDEN, KINDS
from sglang.srt.layers.rotary_embedding.factory import _ROPE_DICT

from sglang_dflash.engine.draft.head_norms import OneLaunch, Operators
from sglang_dflash.engine.draft.model import DFlashDraftModel

BS = 3


def draft(name: str, launches) -> DFlashDraftModel:
    """A draft of fake weights whose norms, rotary embedding and attention are counted, whatever they call."""
    # SGLang keeps rotary embeddings for the next model.
    with torch.device(CUDA), mock.patch.dict(_ROPE_DICT, clear=True):
        model = kinds.built(KINDS[name])

    def counted(name: str, out):
        def forward(*args, **kwargs):
            launches.names[name] += 1
            return out(*args)

        return forward

    for layer in model.layers:
        attention = layer.self_attn
        for norm in (layer.input_layernorm, layer.post_attention_layernorm, attention.q_norm, attention.k_norm):
            norm.forward = counted("norm", lambda x, *residual: (x, *residual) if residual else x)
        attention.rotary_emb.forward = counted("rope", lambda positions, q, k: (q, k))
        attention.attn.forward = counted("attention", lambda q, k, v, batch: torch.empty_like(q))
        layer.mlp.act_fn.forward = counted("activation", lambda x: x[:, : x.shape[1] // 2])
        layer.bind(BLOCK, "fa3")
    return model


@pytest.mark.parametrize("name", ["plain", "gemma norms", "mimo"])
def test_queries_and_keys_of_a_layer_take_one_launch(name):
    with cuda_form() as launches, kinds.single_rank():
        attention = draft(name, launches).layers[0].self_attn
        qkv = torch.empty(BS * BLOCK, attention.q_size + 2 * attention.kv_size, device=CUDA)
        positions = torch.empty(BS * BLOCK, dtype=torch.int64, device=CUDA)
        launches.names.clear()
        shapes = [x.shape for x in Operators(attention)(qkv, positions)]
        assert launches.total == 5  # two copies, two norms, the rotation
        launches.names.clear()
        assert [x.shape for x in OneLaunch(attention, "cuda")(qkv, positions)] == shapes
    assert launches.names == {"_qk_norm_rope_kernel": 1}


# Projections, norms, attention, activation; no copies between them.
LAYERS = {"plain": 9}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer(name):
    with cuda_form() as launches, kinds.single_rank():
        layer = draft(name, launches).layers[1]
        hidden = torch.empty(BS * BLOCK, HIDDEN, device=CUDA)
        positions = torch.empty(BS * BLOCK, dtype=torch.int64, device=CUDA)
        launches.names.clear()
        layer(positions, hidden, torch.empty_like(hidden), SimpleNamespace())
    assert launches.total == LAYERS[name], launches.names
