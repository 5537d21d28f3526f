"""Writes a trained target as a Hugging Face folder."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file

from sglang_dflash.errors import DFlashError
from sglang_dflash.pair.tokenizer import END, PAD, save_tokenizer
from sglang_dflash.train.model import Shape
from sglang_dflash.train.runlog import load_checkpoint

MAX_LENGTH = 4096


def target_config(shape: Shape) -> dict:
    """config.json for ``Qwen3ForCausalLM``."""
    fields = {k: v for k, v in shape.as_dict().items() if k != "rope_theta"}
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        **fields,
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "max_position_embeddings": MAX_LENGTH,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "layer_types": ["full_attention"] * shape.num_hidden_layers,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": shape.num_hidden_layers,
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": None,
        "eos_token_id": END,
        "pad_token_id": PAD,
        "dtype": "float32",
    }


def export_target(run_folder: Path, out: Path) -> None:
    """Weights, configs and tokenizer of the run's checkpoint into ``out``."""
    saved = load_checkpoint(run_folder)
    if saved is None:
        raise DFlashError("out", f"{run_folder} has no checkpoint", "train first")
    out.mkdir(parents=True, exist_ok=True)
    weights = {k: v.float().contiguous() for k, v in saved["model"].items()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(target_config(Shape(**saved["shape"])), indent=1) + "\n")
    generation = {"do_sample": False, "eos_token_id": END, "pad_token_id": PAD}
    (out / "generation_config.json").write_text(json.dumps(generation, indent=1) + "\n")
    save_tokenizer(out)
