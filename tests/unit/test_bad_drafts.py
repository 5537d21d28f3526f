"""A draft whose files or config are wrong ends the launch, before weights load, in one line naming what."""

import json

import pytest
import torch
from launching import launch
from safetensors.torch import save_file
from test_checks_at_launch import DRAFT, TARGET

from sglang_dflash.checkpoints.checks.names import expected_tensors
from sglang_dflash.checkpoints.config import parse_draft_config

LAYERS = {"mask_token_id": 3}
K_PROJ = "layers.1.self_attn.k_proj.weight"


def without(name):
    return lambda tensors: {other: tensor for other, tensor in tensors.items() if other != name}


def changed(name, tensor):
    return lambda tensors: tensors | {name: tensor}


# name -> (changes to the config, change of the tensors, start of the error; None: accepted)
CASES = {
    "complete": ({}, None, None),
    "missing tensor": ({}, without(K_PROJ), f"draft checkpoint: lacks {K_PROJ}"),
    "extra tensor": (
        {},
        changed("selector.weight", torch.zeros(2)),
        "draft tensor selector.weight: is not part of the architecture",
    ),
    "misshaped tensor": (
        {},
        changed("fc.weight", torch.zeros(64, 64)),
        "draft tensor fc.weight: has shape [64, 64], config.json asks for [64, 192]",
    ),
    "unusable type": (
        {},
        changed("norm.weight", torch.zeros(64, dtype=torch.int8)),
        "draft tensor norm.weight: is of type I8",
    ),
    "layer that the config adds": ({"num_hidden_layers": 3}, None, "draft checkpoint: lacks layers.2."),
    "layer id past the target": (
        {"dflash_config": LAYERS | {"target_layer_ids": [0, 7]}},
        None,
        "draft target_layer_ids: hold 7, the target's layers are 0 to 3",
    ),
    "layer id below zero": (
        {"dflash_config": LAYERS | {"target_layer_ids": [-1, 2]}},
        None,
        "draft target_layer_ids: ",
    ),
    "layer ids out of order": (
        {"dflash_config": LAYERS | {"target_layer_ids": [2, 0, 1]}},
        None,
        "draft target_layer_ids: are [2, 0, 1]",
    ),
    "another target's depth": ({"num_target_layers": 36}, None, "draft num_target_layers: is 36"),
    "mask id past the vocabulary": (
        {"dflash_config": {"mask_token_id": 4000, "target_layer_ids": [0, 1, 2]}},
        None,
        "draft mask_token_id: is 4000, outside the target's vocabulary of 128",
    ),
    "uneven heads": ({"num_key_value_heads": 3}, None, "draft num_key_value_heads: is 3"),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Every case through SGLang's parser and resolution, in one process."""
    root = tmp_path_factory.mktemp("drafts")
    (root / "target").mkdir()
    (root / "target" / "config.json").write_text(json.dumps(TARGET))
    shapes = expected_tensors(parse_draft_config(DRAFT))
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    commands = []
    for i, (changes, edit, _) in enumerate(CASES.values()):
        folder = root / f"draft{i}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(DRAFT | changes))
        save_file(edit(weights) if edit else weights, folder / "model.safetensors")
        paths = ["--model-path", str(root / "target"), "--speculative-draft-model-path", str(folder)]
        commands.append(([*paths, "--speculative-algorithm", "DFLASH", "--skip-tokenizer-init"], {}))
    return dict(zip(CASES, launch(commands, resolve=True), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_outcome(outcomes, name):
    expected, error = CASES[name][2], outcomes[name].error
    if expected is None:
        assert error is None
    else:
        assert error.startswith(f"DFlashError: {expected}") and "\n" not in error
