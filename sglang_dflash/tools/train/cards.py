"""A draft's model card, written from what was measured and recorded."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from safetensors import safe_open

from sglang_dflash.errors import DFlashError

_TEXT = """---
{front}
---
# DFlash draft of {target}

Block-diffusion draft (DFlash, arXiv 2602.06036) of {parameters:,} own parameters: {layers} layers, block {block},
features of target layers {taps}; embedding and head are the target's.

Training: {steps:,} steps, {tokens:,} target tokens, {minutes:.0f} minutes, seed {seed}. Settings and versions:
`provenance.json`.

{curve}

Held-out prompts, greedy; accept length is the mean number of tokens committed per round, bonus token included
(`sglang-dflash train eval`):

{kinds}

Mean over kinds {mean:.2f}; over all {rounds:,} rounds {every:.2f}.
Kept at position 1..{last}, where the text went on that far: {kept};
given that all before were kept: {given}.
"""


def count_parameters(folder: Path) -> int:
    """Numbers stored in a folder's weights."""
    with safe_open(folder / "model.safetensors", "pt") as f:
        return sum(f.get_tensor(name).numel() for name in f.keys())


def write_card(folder: Path | None, results: dict, licence: str = "apache-2.0") -> None:
    """README.md of a draft, from ``evaluate``'s results and the folder's config, provenance and curve.

    Raises:
        DFlashError: the folder has no record of its training.
    """
    if folder is None or str(folder) == "none":
        raise DFlashError("card", "needs a draft", "give --draft")
    paths = [folder / name for name in ("config.json", "provenance.json", "curve.csv")]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise DFlashError("card", f"{folder} has no {missing[0]}", "give a draft that train draft wrote")
    config, record = json.loads(paths[0].read_text()), json.loads(paths[1].read_text())
    summary = results["summary"]
    text = _TEXT.format(
        front=ModelCardData(license=licence, library_name="sglang").to_yaml(),
        target=Path(record["settings"]["target"]).name,
        parameters=count_parameters(folder),
        layers=config["num_hidden_layers"],
        block=config["block_size"],
        taps=", ".join(map(str, config["dflash_config"]["target_layer_ids"])),
        steps=record["steps"],
        tokens=record["tokens"],
        minutes=record["trained_minutes"],
        seed=record["settings"]["seed"],
        curve=_curve(paths[2]),
        kinds=_kinds(results["kinds"]),
        mean=summary["mean_over_kinds"],
        rounds=summary["rounds"],
        every=summary["accept_length"],
        last=config["block_size"] - 1,
        kept=_shares(summary["kept_by_position"]),
        given=_shares(summary["kept_given_previous"]),
    )
    ModelCard(text).save(folder / "README.md")


def _curve(path: Path) -> str:
    with path.open() as f:
        rows = [[r["step"], r["tokens"], r["loss"], r["mean"]] for r in csv.DictReader(f)]
    return _table(["step", "target tokens", "running loss", "accept length, validation prompts"], rows)


def _kinds(kinds: list[dict]) -> str:
    names = ["kind", "prompts", "accept length", "mean tokens", "repeated 4-grams %"]
    return _table(
        names,
        [
            [
                kind["kind"],
                kind["prompts"],
                f"{kind['accept_length']:.2f}",
                f"{kind['mean_tokens']:.0f}",
                f"{100 * kind['repeated_4grams']:.0f}",
            ]
            for kind in kinds
        ],
    )


def _table(names: list[str], rows: list[list]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _shares(values: list[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values)
