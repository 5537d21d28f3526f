"""``sglang-dflash train``: make the embedded pair, or a draft for any causal LM, and measure it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.pair import DRAFT_DIR, TARGET_DIR
from sglang_dflash.tools.train.cli_data import answers, features, questions
from sglang_dflash.tools.train.cli_options import (
    Compute,
    Device,
    Dtype,
    Kinds,
    LayerIds,
    Minutes,
    Start,
    Steps,
    TapCount,
    Threads,
    dtype_of,
    fail,
    ids_of,
    settings,
    split,
    start,
)

app = typer.Typer(
    help="Train the embedded target or a DFlash draft, make its data, and evaluate them.", no_args_is_help=True
)
for command in (questions, answers, features):
    app.command()(command)


@app.command()
def target(
    out: Annotated[Path, typer.Option(help="Run folder: checkpoint and curve.")] = Path("runs/target"),
    export: Annotated[Path, typer.Option(help="Where the finished model goes.")] = Path("runs/target/export"),
    config: Annotated[Path | None, typer.Option(help="config.json of any causal LM, instead of the embedded.")] = None,
    kinds: Kinds = None,
    minutes: Minutes = 83.0,
    steps: Steps = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and text.")] = 1,
    layers: Annotated[int, typer.Option(help="Transformer layers.")] = 8,
    hidden: Annotated[int, typer.Option(help="Hidden size.")] = 128,
    tokens: Annotated[int, typer.Option(help="Tokens per step.")] = 1536,
    dtype: Dtype = "float32",
    start_from: Start = None,
    threads: Threads = 1,
    device: Device = "auto",
) -> None:
    """Train the embedded target, or a small one of any architecture; run again with the same --out to resume."""
    options = dict(locals())
    options["device"] = start("target", options)
    from sglang_dflash.tools.train.export import export_target
    from sglang_dflash.tools.train.target import TargetRun, TargetTrainer

    try:
        run = TargetRun(**settings(TargetRun, options, kinds=split(kinds)))
        trainer, written = TargetTrainer(run), dtype_of(dtype)
        _train(trainer)
        export_target(out, export, written)
    except DFlashError as error:
        fail(error)
    _report(trainer, export, "target")
    typer.echo(f"model in {export}")


@app.command()
def draft(
    target: Annotated[str, typer.Option(help="Frozen target: folder or hub name.")] = str(TARGET_DIR),
    data: Annotated[
        str, typer.Option(help="'builtin', a JSONL file of texts or chats, or a folder of features.")
    ] = "builtin",
    out: Annotated[Path, typer.Option(help="Run folder; the draft is written to its subfolder 'draft'.")] = Path(
        "runs/draft"
    ),
    kinds: Kinds = None,
    minutes: Minutes = 30.0,
    steps: Steps = None,
    layers: Annotated[int, typer.Option(help="Draft layers.")] = 2,
    block_size: Annotated[int, typer.Option(help="Positions per block, the anchor included.")] = 16,
    taps: TapCount = 4,
    target_layer_ids: LayerIds = None,
    mask_token_id: Annotated[int | None, typer.Option(help="Default: the tokenizer's mask token.")] = None,
    regenerate: Annotated[bool, typer.Option(help="Replace answers in --data by the target's own.")] = False,
    anchors: Annotated[int, typer.Option(help="Blocks per row.")] = 16,
    tokens: Annotated[int, typer.Option(help="Target tokens per step.")] = 1536,
    max_length: Annotated[int, typer.Option(help="Longest document, in tokens.")] = 2048,
    gamma: Annotated[float, typer.Option(help="Decay of the loss over a block's positions.")] = 7.0,
    start_layers: Annotated[
        str | None, typer.Option(help="Target layers that the draft's begin as, such as 28,29; random by default.")
    ] = None,
    loss_vocabulary: Annotated[
        int | None, typer.Option(help="Take the loss over that many frequent ids; over all by default.")
    ] = None,
    compute: Compute = "float32",
    optimizer: Annotated[str, typer.Option(help="Of the matrices: muon, or adamw for large ones on a CPU.")] = "muon",
    learning_rate: Annotated[float, typer.Option(help="Of the matrices, at its highest.")] = 6e-3,
    check_minutes: Annotated[float, typer.Option(help="Between two measurements of the accept length.")] = 4.0,
    check_prompts: Annotated[int, typer.Option(help="Held-out prompts of each kind for that.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of weights, text and anchors.")] = 7,
    dtype: Dtype = "float32",
    start_from: Start = None,
    threads: Threads = 1,
    device: Device = "auto",
) -> None:
    """Train a DFlash draft on a frozen target; run again with the same --out to resume."""
    options = dict(locals())
    options["device"] = start("draft", options)
    from sglang_dflash.tools.train.draft import DraftRun, DraftTrainer

    try:
        converted = {
            "kinds": split(kinds),
            "tap_count": taps,
            "target_layer_ids": ids_of(target_layer_ids),
            "start_layers": ids_of(start_layers, "start_layers"),
            "compute": dtype_of(compute, "compute"),
            "dtype": dtype_of(dtype),
            "matrix_lr": learning_rate,
            "vector_lr": learning_rate / 2,
            "check_every_s": 60 * check_minutes,
        }
        run = DraftRun(**settings(DraftRun, options, **converted))
        trainer = DraftTrainer(run)
        _train(trainer)
    except DFlashError as error:
        fail(error)
    _report(trainer, out / "draft", "draft")
    typer.echo(f"draft in {out / 'draft'}")


def _train(trainer) -> None:
    typer.echo("resuming" if trainer.resume() else "starting afresh")
    trainer.run()


def _report(trainer, folder: Path, title: str) -> None:
    """Provenance and curve beside the weights."""
    from sglang_dflash.tools.train.report import plot_curve, provenance, write_json

    settings = {k: str(v) for k, v in asdict(trainer.config).items()}
    write_json(folder / "provenance.json", provenance(settings) | trainer.summary())
    plot_curve(trainer.config.out, folder, title)


@app.command("eval")
def evaluate_pair(
    target: Annotated[str, typer.Option(help="Target folder or hub name.")] = str(TARGET_DIR),
    draft: Annotated[Path | None, typer.Option(help="Draft folder; 'none' judges answers only.")] = DRAFT_DIR,
    limit: Annotated[int | None, typer.Option(help="Prompts per kind.")] = None,
    kinds: Annotated[str | None, typer.Option(help="Comma-separated kinds; all by default.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of features: replay its held-out answers instead of generating any.")
    ] = None,
    compute: Compute = "float32",
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write everything here.")] = None,
    card: Annotated[bool, typer.Option("--card", help="Also write the draft's README.md.")] = False,
    threads: Threads = 1,
    device: Device = "auto",
) -> None:
    """Right answers and accept lengths per kind on the held-out prompts."""
    device = start("eval", locals())
    from sglang_dflash.tools.pair.heldout import HELDOUT_KINDS
    from sglang_dflash.tools.train.cards import write_card
    from sglang_dflash.tools.train.evaluate import evaluate, evaluate_store
    from sglang_dflash.tools.train.report import print_table, write_json

    chosen = tuple(kinds.split(",")) if kinds else HELDOUT_KINDS
    try:
        if data:
            results = evaluate_store(target, draft, data, limit, dtype_of(compute, "compute"), device)
        else:
            results = evaluate(target, None if str(draft) == "none" else draft, limit, chosen, device)
        if card:
            write_card(draft, results)
    except DFlashError as error:
        fail(error)
    print_table(results)
    if json_out:
        write_json(json_out, results)
