"""Checks before weights: a pair, the draft's tensors, the mask token; each error names what is wrong."""

import dataclasses
import json

import pytest
import torch
from published_drafts import GEMMA4_31B, GPT_OSS_20B, QWEN3_8B, QWEN35_27B, plain
from safetensors.torch import save_file

from sglang_dflash.checkpoints.checks import check_tensors, mask_token_id, read_tensors
from sglang_dflash.checkpoints.checks.names import expected_tensors
from sglang_dflash.checkpoints.checks.pair import pair_findings
from sglang_dflash.checkpoints.checks.targets import WITHOUT_CAPTURE, check_capture
from sglang_dflash.checkpoints.checks.tensors import TensorInfo
from sglang_dflash.checkpoints.checks.tokenizer_files import read_texts
from sglang_dflash.checkpoints.config import parse_draft_config
from sglang_dflash.errors import DFlashError

QWEN3_8B_TARGET = {"hidden_size": 4096, "vocab_size": 151936, "num_hidden_layers": 36}
TINY = plain(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    vocab_size=32,
    num_target_layers=4,
    dflash_config={"mask_token_id": 3, "target_layer_ids": [0, 2]},
)


def changed(raw, **fields):
    return parse_draft_config(raw | fields)


def tapping(*layer_ids):
    return parse_draft_config(plain(dflash_config={"mask_token_id": 4, "target_layer_ids": list(layer_ids)}))


@pytest.mark.parametrize(
    ("target", "raw"),
    [
        (QWEN3_8B_TARGET, QWEN3_8B),
        ({"text_config": {"hidden_size": 5120, "vocab_size": 248320, "num_hidden_layers": 64}}, QWEN35_27B),
        ({"hidden_size": 2880, "vocab_size": 201088, "num_hidden_layers": 24}, GPT_OSS_20B),
        ({"text_config": {"hidden_size": 5376, "vocab_size": 262144, "num_hidden_layers": 60}}, GEMMA4_31B),
    ],
)
def test_published_pairs_fit(target, raw):
    draft = parse_draft_config(raw)
    for block_size in (None, 2, 5, 16, 32):
        assert list(pair_findings(target, draft, block_size=block_size, window=4096, tp_size=2)) == []


@pytest.mark.parametrize(
    ("target", "draft", "named"),
    [
        (
            {"hidden_size": 2560},
            parse_draft_config(QWEN3_8B),
            "draft hidden_size: is 4096, the target's is 2560",
        ),
        (
            {"vocab_size": 1000},
            parse_draft_config(QWEN3_8B),
            "draft vocab_size: is 151936, the target's is 1000",
        ),
        ({"num_hidden_layers": 40}, parse_draft_config(QWEN3_8B), "draft num_target_layers: is 36"),
        (
            {},
            changed(QWEN3_8B, dflash_config={"mask_token_id": 151936}),
            "draft mask_token_id: is 151936, outside",
        ),
        ({}, tapping(1, 36), "draft target_layer_ids: hold 36, the target's layers are 0 to 35"),
        ({}, tapping(-1, 3), "draft target_layer_ids: hold -1"),
        ({}, tapping(3, 3), "draft target_layer_ids: are [3, 3]"),
        ({}, tapping(5, 3), "draft target_layer_ids: are [5, 3]"),
        ({}, changed(QWEN3_8B, num_key_value_heads=5), "draft num_key_value_heads: is 5"),
        ({}, changed(QWEN3_8B, head_dim=127), "draft head_dim: is 127"),
    ],
)
def test_a_pair_that_does_not_fit_is_named(target, draft, named):
    found = list(pair_findings(QWEN3_8B_TARGET | target, draft))
    assert str(found[0].as_error()).startswith(named)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"block_size": 1}, "--speculative-num-draft-tokens: is 1"),
        ({"block_size": 0}, "--speculative-num-draft-tokens: is 0"),
        ({"block_size": 50000}, "--speculative-num-draft-tokens: is 50000"),
        ({"window": 15}, "--speculative-draft-window-size: is 15, less than the block of 16"),
        ({"window": 15, "block_size": 16}, "--speculative-draft-window-size: is 15"),
        ({"tp_size": 3}, "--tp-size: is 3"),
    ],
)
def test_sizes_asked_for_are_checked(asked, named):
    [found] = pair_findings(QWEN3_8B_TARGET, parse_draft_config(QWEN3_8B), **asked)
    assert str(found.as_error()).startswith(named)


def test_looped_targets_count_every_loop():
    draft = parse_draft_config(QWEN3_8B)
    assert list(pair_findings(QWEN3_8B_TARGET | {"num_hidden_layers": 18, "num_loops": 2}, draft)) == []


def tiny_tensors(raw=TINY) -> dict[str, TensorInfo]:
    return {name: TensorInfo("BF16", shape) for name, shape in expected_tensors(parse_draft_config(raw)).items()}


def test_names_and_shapes_of_a_published_checkpoint():
    expected = expected_tensors(parse_draft_config(QWEN3_8B))
    assert len(expected) == 58  # as published: 3 + 5 layers of 11
    assert expected["fc.weight"] == (4096, 5 * 4096)
    assert expected["layers.4.self_attn.k_proj.weight"] == (1024, 4096)
    assert expected["layers.0.mlp.down_proj.weight"] == (4096, 12288)
    biased = expected_tensors(parse_draft_config(GPT_OSS_20B))
    assert biased["layers.7.self_attn.q_proj.bias"] == (4096,)
    assert biased["layers.7.self_attn.o_proj.bias"] == (2880,)
    assert len(biased) == 3 + 8 * 15


def test_exact_tensors_pass_with_what_exports_add():
    draft = parse_draft_config(TINY)
    check_tensors(tiny_tensors(), draft)
    check_tensors({f"model.{name}": info for name, info in tiny_tensors().items()}, draft)
    added = {
        "embed_tokens.weight": TensorInfo("BF16", (32, 16)),
        "lm_head.weight": TensorInfo("BF16", (32, 16)),
        "layers.0.self_attn.rotary_emb.inv_freq": TensorInfo("F32", (4,)),
    }
    check_tensors(tiny_tensors() | added, draft)


def test_every_single_missing_extra_or_misshaped_tensor_is_named():
    draft = parse_draft_config(TINY)
    for name, info in tiny_tensors().items():
        rest = {other: value for other, value in tiny_tensors().items() if other != name}
        for tensors, problem in (
            (rest, "lacks"),
            (tiny_tensors() | {f"{name}x": info}, "is not part"),
            (
                tiny_tensors() | {name: TensorInfo("BF16", (*info.shape[:-1], info.shape[-1] + 1))},
                "has shape",
            ),
            (tiny_tensors() | {name: TensorInfo("F8_E4M3", info.shape)}, "is of type F8_E4M3"),
        ):
            with pytest.raises(DFlashError) as caught:
                check_tensors(tensors, draft)
            assert name in str(caught.value) and problem in str(caught.value)


def test_headers_are_read_from_one_file_or_many(tmp_path):
    assert read_tensors(tmp_path) is None
    weights = {name: torch.zeros(info.shape, dtype=torch.bfloat16) for name, info in tiny_tensors().items()}
    save_file(weights, tmp_path / "model.safetensors")
    assert read_tensors(tmp_path) == tiny_tensors()

    (tmp_path / "model.safetensors").unlink()
    names = list(weights)
    parts = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    for file, own in parts.items():
        save_file({name: weights[name] for name in own}, tmp_path / file)
    index = {"weight_map": {name: file for file, own in parts.items() for name in own}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_tensors(tmp_path) == tiny_tensors()
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(DFlashError, match="lacks the file b.safetensors"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"\xff" * 64, (1 << 20).to_bytes(8, "little") + b"{}"])
def test_a_damaged_file_is_named(tmp_path, damage):
    (tmp_path / "model.safetensors").write_bytes(damage)
    with pytest.raises(DFlashError, match="model.safetensors is damaged"):
        read_tensors(tmp_path)


def test_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"fc.weight": torch.zeros(8, 8)}, path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DFlashError, match="model.safetensors is damaged"):
        read_tensors(tmp_path)


def test_mask_token_by_number_by_name_or_behind_the_vocabulary():
    numbered = parse_draft_config(TINY)
    named = dataclasses.replace(numbered, mask_token_id=None, mask_token="<mask>")
    assert mask_token_id(numbered, {"a": 0}, 32) == 3
    assert mask_token_id(named, {"a": 0, "<mask>": 7}, 32) == 7
    assert mask_token_id(named, {"a": 0, "b": 9}, 32) == 10
    with pytest.raises(DFlashError, match="draft mask_token: needs id 32, outside"):
        mask_token_id(named, {"a": 31}, 32)
    with pytest.raises(DFlashError, match="is 3, but the target's tokenizer has <|MASK|> at 5"):
        mask_token_id(numbered, {"<|MASK|>": 5}, 32)


def test_vocabulary_with_added_tokens(tmp_path):
    assert read_texts(tmp_path).vocabulary is None
    tokenizer = {"model": {"vocab": {"a": 0}}, "added_tokens": [{"content": "<mask>", "id": 1}]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    texts = read_texts(tmp_path)
    assert texts.vocabulary == {"a": 0, "<mask>": 1} and texts.added == {1} and texts.token(1) == "<mask>"


def test_targets_that_cannot_hand_out_their_hidden_states():
    check_capture("Qwen3ForCausalLM")
    with pytest.raises(DFlashError, match="MixtralForCausalLM cannot hand out"):
        check_capture("MixtralForCausalLM")


@pytest.mark.parametrize("architecture", WITHOUT_CAPTURE)
def test_the_capture_table_holds_in_the_installed_sglang(architecture):
    """Read as text: importing every model takes minutes."""
    import importlib.util
    from pathlib import Path

    root = Path(importlib.util.find_spec("sglang").submodule_search_locations[0])
    source = (root / "srt" / "models" / f"{WITHOUT_CAPTURE[architecture]}.py").read_text()
    assert f"class {architecture}(" in source
    assert "layers_to_capture" not in source
