"""Checkpoints of every kind: complete ones load, by either check; each new tensor is missed or mis-shaped by name."""

import kinds
import pytest
import torch
from kinds import HIDDEN, KINDS, VOCAB
from safetensors.torch import save_file

from sglang_dflash.checkpoints.checks.tensors import check_tensors, read_tensors
from sglang_dflash.checkpoints.config import parse_draft_config
from sglang_dflash.errors import DFlashError

NEW_TENSORS = {
    "mimo": ["layers.1.self_attn.attention_sink_bias"],
    "laguna": ["aux_hidden_norms.1.weight", "layers.0.self_attn.g_proj.weight"],
    "dflash 2": [
        "layers.2.attention_conv.base_kernel",
        "layers.0.attention_conv.kernel_projection.weight",
        "layers.1.mlp_conv.base_kernel",
        "layers.1.mlp_conv.kernel_projection.weight",
        "candidate_selector.predecessor_codebook",
        "candidate_selector.successor_codebook",
        "candidate_selector.hidden_projection.weight",
    ],
    "nemotron": ["embed_tokens.weight"],
    "own head": ["lm_head.weight"],
    "speculators, part of the vocabulary": ["d2t", "lm_head.weight"],
}
CASES = [(kind, name) for kind, names in NEW_TENSORS.items() for name in names]


def check_headers(config, tensors, folder) -> None:
    save_file(tensors, folder / "model.safetensors")
    check_tensors(read_tensors(folder), parse_draft_config(config))


@pytest.mark.parametrize("kind", KINDS)
def test_complete_checkpoints_are_complete(kind, tmp_path):
    config, tensors = KINDS[kind], kinds.tensors_of(KINDS[kind])
    check_headers(config, tensors, tmp_path)
    model = kinds.built(config)
    model.load_weights(tensors.items())
    names = dict(model.named_parameters()) | dict(model.named_buffers())
    for name in ("candidate_selector.successor_codebook", "layers.1.mlp_conv.base_kernel", "d2t", "fc.weight"):
        if name in tensors:
            assert torch.equal(names[name], tensors[name])


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_missing_tensor_is_named(kind, name, tmp_path):
    config, tensors = KINDS[kind], kinds.tensors_of(KINDS[kind])
    del tensors[name]
    with pytest.raises(DFlashError, match=f"^draft checkpoint: lacks {name} "):
        check_headers(config, tensors, tmp_path)
    with pytest.raises(DFlashError, match=f"^draft checkpoint: lacks {name} "):
        kinds.built(config).load_weights(tensors.items())


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_misshaped_tensor_is_named(kind, name, tmp_path):
    config, tensors = KINDS[kind], kinds.tensors_of(KINDS[kind])
    tensors[name] = torch.cat((tensors[name], tensors[name]))
    with pytest.raises(DFlashError, match=f"^draft tensor {name}: has shape"):
        check_headers(config, tensors, tmp_path)
    with pytest.raises(DFlashError, match=f"^draft tensor {name}: shape .* does not fit"):
        kinds.built(config).load_weights(tensors.items())


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_plain_draft_has_no_such_tensor(kind, name, tmp_path):
    if name in ("embed_tokens.weight", "lm_head.weight", "d2t"):
        return  # the target's own ends, exported with it: passed over
    tensors = kinds.tensors_of(KINDS["plain"]) | {name: kinds.tensors_of(KINDS[kind])[name]}
    with pytest.raises(DFlashError, match=f"^draft tensor {name}: is not part of"):
        check_headers(KINDS["plain"], tensors, tmp_path)
    with pytest.raises(DFlashError, match=f"^draft tensor {name}: is unknown"):
        kinds.built(KINDS["plain"]).load_weights(tensors.items())


def test_fused_projections_and_the_names_of_other_exports(tmp_path):
    plain = kinds.tensors_of(KINDS["laguna"])
    tensors = dict(plain)
    for layer in range(kinds.LAYERS):
        parts = [tensors.pop(f"layers.{layer}.self_attn.{part}_proj.weight") for part in "qkv"]
        tensors[f"layers.{layer}.self_attn.qkv_proj.weight"] = torch.cat(parts)
    tensors["encoder.fc.weight"] = tensors.pop("fc.weight")
    tensors["encoder.output_norm_enc.weight"] = tensors.pop("hidden_norm.weight")
    tensors["t2d"], tensors["verifier_norm.weight"] = torch.zeros(VOCAB, dtype=torch.bool), torch.zeros(HIDDEN)
    check_headers(KINDS["laguna"], tensors, tmp_path)
    fused, apart = kinds.built(KINDS["laguna"]), kinds.built(KINDS["laguna"])
    fused.load_weights(tensors.items())
    apart.load_weights(plain.items())
    for name, parameter in apart.named_parameters():
        assert torch.equal(fused.get_parameter(name), parameter), name


def test_ends_may_be_left_out_where_the_library_leaves_them_out():
    config, ends_of = KINDS["speculators"], kinds.target()
    tensors = kinds.tensors_of(config)
    for name in ("embed_tokens.weight", "lm_head.weight"):
        del tensors[name]
    model = kinds.loaded(config, tensors, ends_of)
    assert model.embed_tokens is None and model.lm_head is None


def test_copies_of_the_targets_ends_are_kept_once():
    config, ends_of = KINDS["speculators"], kinds.target()
    embed, head = (end.weight.data for end in (ends_of.get_input_embeddings(), ends_of.lm_head))
    for end in (ends_of.get_input_embeddings(), ends_of.lm_head):
        # SGLang pads vocabularies, a target's as a draft's.
        end.weight.data = torch.cat((end.weight.data, torch.zeros(64 - VOCAB, HIDDEN)))
    tensors = kinds.tensors_of(config)
    own = kinds.loaded(config, tensors, ends_of)
    assert own.embed_tokens is not None and own.lm_head is not None
    copies = tensors | {"embed_tokens.weight": embed, "lm_head.weight": head}
    shared = kinds.loaded(config, copies, ends_of)
    assert shared.embed_tokens is None and shared.lm_head is None
    shared.load_weights(copies.items())  # an update brings them again
    # A table that its owner scales is another embedding.
    ends_of.get_input_embeddings().embed_scale = 2.0
    assert kinds.loaded(config, copies, ends_of).embed_tokens is not None


def test_sinks_are_in_the_dtype_that_the_attention_backend_reads():
    model = kinds.built(KINDS["mimo"])
    sinks = [layer.self_attn.attention_sink_bias for layer in model.layers]
    for sink in sinks:
        sink.data = sink.data.bfloat16()
    model.bind(None, kinds.BLOCK, "fa3")
    assert all(sink.dtype == torch.bfloat16 for sink in sinks)
    model.bind(None, kinds.BLOCK, "trtllm_mha")
    assert all(sink.dtype == torch.float32 for sink in sinks)
