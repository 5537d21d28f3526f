"""Strict loading of a draft checkpoint into the real layers."""

import pytest
import torch
from rooms import CONFIG, HEAD_DIM, HIDDEN, KV_HEADS, checkpoint, draft_model, unloaded_draft

from sglang_dflash.errors import DFlashError


def test_every_tensor_lands_where_its_name_says():
    tensors, model = checkpoint(), draft_model()
    attention, mlp = model.layers[1].self_attn, model.layers[1].mlp
    fused = [tensors[f"layers.1.self_attn.{part}_proj.weight"] for part in "qkv"]
    assert torch.equal(attention.qkv_proj.weight, torch.cat(fused))
    gate_up = [tensors[f"layers.1.mlp.{part}_proj.weight"] for part in ("gate", "up")]
    assert torch.equal(mlp.gate_up_proj.weight, torch.cat(gate_up))
    for name in ("fc.weight", "hidden_norm.weight", "norm.weight", "layers.2.self_attn.o_proj.weight"):
        assert torch.equal(model.get_parameter(name), tensors[name])
    assert model.is_loaded


def test_biases_are_part_of_the_architecture_where_the_config_says_so():
    config = CONFIG | {"attention_bias": True}
    tensors, model = checkpoint(config), draft_model(config)
    biases = [tensors[f"layers.0.self_attn.{part}_proj.bias"] for part in "qkv"]
    assert torch.equal(model.layers[0].self_attn.qkv_proj.bias, torch.cat(biases))


def test_prefixed_names_and_the_targets_ends_are_accepted():
    model = unloaded_draft()
    renamed = {f"model.{name}": tensor for name, tensor in checkpoint().items()}
    renamed["lm_head.weight"] = renamed["model.embed_tokens.weight"] = torch.zeros(50, HIDDEN)
    model.load_weights(renamed.items())
    assert torch.equal(model.fc.weight, checkpoint()["fc.weight"])


@pytest.mark.parametrize("name", ["fc.weight", "layers.1.self_attn.k_proj.weight", "layers.2.mlp.up_proj.weight"])
def test_a_missing_tensor_is_named(name):
    tensors = checkpoint()
    del tensors[name]
    with pytest.raises(DFlashError, match=f"^draft checkpoint: lacks {name} "):
        unloaded_draft().load_weights(tensors.items())


@pytest.mark.parametrize("name", ["layers.3.mlp.up_proj.weight", "layers.0.self_attn.q_proj.bias", "selector.weight"])
def test_an_unknown_tensor_is_named(name):
    with pytest.raises(DFlashError, match=f"^draft tensor {name}: is unknown"):
        unloaded_draft().load_weights((checkpoint() | {name: torch.zeros(3)}).items())


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("fc.weight", (HIDDEN, HIDDEN)),
        ("norm.weight", (HIDDEN + 1,)),
        ("layers.0.self_attn.k_proj.weight", (KV_HEADS * HEAD_DIM - 1, HIDDEN)),
        ("layers.0.self_attn.v_proj.weight", (HIDDEN, KV_HEADS * HEAD_DIM)),
        ("layers.1.mlp.up_proj.weight", (48, HIDDEN + 2)),
        ("layers.2.self_attn.k_norm.weight", (HEAD_DIM * 2,)),
    ],
)
def test_a_misshaped_tensor_is_named(name, shape):
    with pytest.raises(DFlashError, match=f"^draft tensor {name}: shape .* does not fit"):
        unloaded_draft().load_weights((checkpoint() | {name: torch.zeros(shape)}).items())


def test_an_update_may_be_partial():
    model = draft_model()
    model.bind(object(), 4, "test")
    model.load_weights([("fc.weight", torch.zeros(HIDDEN, 2 * HIDDEN))])
    assert not model.fc.weight.any()
