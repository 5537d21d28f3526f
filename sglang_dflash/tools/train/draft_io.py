"""Draft checkpoints in the published layout: config.json and model.safetensors."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.train.draft_model import DraftNetwork
from sglang_dflash.tools.train.model import Shape


def default_taps(num_layers: int, count: int) -> list[int]:
    """``count`` layers spread from the first to the last that can be captured.

    Servers capture the input of the following layer, so the last layer's output is out of reach.
    """
    last = num_layers - 2
    if count < 1 or count > last + 1:
        raise DFlashError("taps", f"{count} taps asked of {num_layers} layers", f"ask for 1 to {last + 1}")
    return [last] if count == 1 else [round(i * last / (count - 1)) for i in range(count)]


def check_taps(taps: list[int], num_layers: int) -> None:
    """Raise unless ``taps`` are different, rising and can be captured."""
    if sorted(set(taps)) != taps or not taps or taps[0] < 0 or taps[-1] > num_layers - 2:
        raise DFlashError(
            "target_layer_ids",
            f"{taps} does not fit {num_layers} layers",
            f"give different rising ids from 0 to {num_layers - 2}",
        )


def draft_config(
    shape: Shape, target_layers: int, taps: list[int], block_size: int, mask_id: int, max_length: int
) -> dict:
    """config.json of a draft."""
    return {
        "architectures": ["DFlashDraftModel"],
        "model_type": "qwen3",
        **{k: v for k, v in shape.as_dict().items() if k != "rope_theta"},
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "rope_scaling": None,
        "max_position_embeddings": max_length,
        "max_window_layers": shape.num_hidden_layers,
        "use_sliding_window": False,
        "sliding_window": None,
        "layer_types": ["full_attention"] * shape.num_hidden_layers,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "tie_word_embeddings": False,
        "dtype": "float32",
        "block_size": block_size,
        "num_target_layers": target_layers,
        "dflash_config": {"mask_token_id": mask_id, "target_layer_ids": taps},
    }


def save_draft(folder: Path, network: DraftNetwork, config: dict, dtype: torch.dtype = torch.float32) -> None:
    """Write config and weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = config | {"dtype": str(dtype).removeprefix("torch.")}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    weights = {k: v.detach().to(dtype).contiguous().cpu() for k, v in network.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def load_draft(folder: Path) -> tuple[DraftNetwork, dict]:
    """The network and its config; the weights must fit exactly."""
    config = json.loads((folder / "config.json").read_text())
    known = {k: config[k] for k in Shape.__dataclass_fields__ if k in config}
    taps = config["dflash_config"]["target_layer_ids"]
    network = DraftNetwork(Shape(**known), len(taps), config["max_position_embeddings"])
    network.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
    return network.eval(), config
