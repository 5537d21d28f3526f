"""Writes a trained target as a Hugging Face folder."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.pair.tokenizer import END, PAD, save_tokenizer
from sglang_dflash.tools.train.networks import rebuild
from sglang_dflash.tools.train.runlog import load_checkpoint


def export_target(run_folder: Path, out: Path, dtype: torch.dtype = torch.float32) -> None:
    """Weights, configs and tokenizer of the run's checkpoint into ``out``."""
    saved = load_checkpoint(run_folder)
    if saved is None:
        raise DFlashError("out", f"{run_folder} has no checkpoint", "train first")
    out.mkdir(parents=True, exist_ok=True)
    network = rebuild(saved["shape"])
    network.module.load_state_dict(saved["model"])
    network.write(out, dtype)
    generation = {"do_sample": False, "eos_token_id": END, "pad_token_id": PAD}
    (out / "generation_config.json").write_text(json.dumps(generation, indent=1) + "\n")
    save_tokenizer(out)
