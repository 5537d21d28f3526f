"""What published drafts may have in their config reaches the served draft: rounds are the oracle's."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_oracles import GREEDY, Oracle, assert_same_rounds

from sglang_dflash.reference import ReferenceDraft


@pytest.fixture(scope="module")
def variant(pair, tmp_path_factory) -> str:
    """The draft with YaRN, attention biases, and a first layer that slides without being causal."""
    folder = tmp_path_factory.mktemp("variant-draft")
    config = json.loads((Path(pair.draft) / "config.json").read_text())
    for key in ("rope_parameters", "rope_scaling"):
        config.pop(key, None)
    layers = config["num_hidden_layers"]
    config |= {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 2.0,
            "original_max_position_embeddings": 1024,
        },
        "attention_bias": True,
        "layer_types": ["sliding_attention"] + ["full_attention"] * (layers - 1),
        "sliding_window": 40,
        "use_sliding_window": True,
        "is_causal": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(Path(pair.draft) / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name in [name for name in tensors if name.endswith("_proj.weight") and "self_attn" in name]:
        bias = torch.randn(tensors[name].shape[0], generator=generator) * 0.05
        tensors[name.replace("weight", "bias")] = bias.to(tensors[name].dtype)
    save_file(tensors, folder / "model.safetensors")
    return str(folder)


def test_rounds_are_the_oracles(servers, pair, variant):
    oracle = Oracle(pair)
    oracle.draft = ReferenceDraft(variant)
    prompts = [prompt.token_ids for prompt in pair.prompts(per_kind=2)]
    server = servers.get(replace(servers.spec("dflash", "--page-size", 8), draft=variant))
    answers = server.client.generate_many(prompts, 4, GREEDY)
    assert_same_rounds(answers, prompts, oracle, oracle.draft.block_size)
    assert sum(answer.accept_length for answer in answers) / len(answers) > 1.2
