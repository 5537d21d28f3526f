"""``sglang-dflash train``: make the embedded pair, or a draft for any causal LM, and measure it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.pair import DRAFT_DIR, TARGET_DIR

app = typer.Typer(help="Train the embedded target or a DFlash draft, and evaluate them.", no_args_is_help=True)

Minutes = Annotated[float, typer.Option(help="Training time; the learning rate decays to its end.")]
Threads = Annotated[int, typer.Option(help="CPU threads.")]
Start = Annotated[Path | None, typer.Option(help="Folder of weights to begin with, instead of random ones.")]
Steps = Annotated[int | None, typer.Option(help="Length of the run in steps, instead of --minutes.")]
Kinds = Annotated[str | None, typer.Option(help="Comma-separated kinds of the built-in text; all by default.")]
Dtype = Annotated[str, typer.Option(help="Of the finished weights: float32 or bfloat16.")]
Device = Annotated[str, typer.Option(help="torch device; 'auto' takes a GPU where there is one.")]


def _start(arguments: list[str], threads: int, device: str) -> str:
    """CPU settings (may restart the process once), and the device to use."""
    from sglang_dflash.tools.train.fastenv import restart_with_fast_malloc

    restart_with_fast_malloc([*arguments, "--threads", str(threads), "--device", device], threads)
    import torch

    torch.set_num_threads(threads)
    return device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")


def _fail(error: DFlashError) -> None:
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(2)


def _arguments(command: str, options: dict[str, object]) -> list[str]:
    """The command line that gives these options again; a flag's value is a bool."""
    out = [command]
    for name, value in options.items():
        if isinstance(value, bool):
            out += [f"--{name}"] if value else []
        elif value is not None:
            out += [f"--{name}", str(value)]
    return out


def _dtype(name: str):
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name not in known:
        raise DFlashError("dtype", f"is {name!r}", "float32 or bfloat16")
    return known[name]


def _split(kinds: str | None) -> tuple[str, ...]:
    return tuple(kinds.split(",")) if kinds else ()


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
    given = {
        "out": out,
        "export": export,
        "config": config,
        "kinds": kinds,
        "minutes": minutes,
        "steps": steps,
        "seed": seed,
        "layers": layers,
        "hidden": hidden,
        "tokens": tokens,
        "dtype": dtype,
        "start-from": start_from,
    }
    device = _start(_arguments("target", given), threads, device)
    from sglang_dflash.tools.train.export import export_target
    from sglang_dflash.tools.train.target import TargetRun, TargetTrainer

    try:
        run = TargetRun(
            out,
            minutes,
            seed,
            steps,
            tokens,
            kinds=_split(kinds),
            layers=layers,
            hidden=hidden,
            config=config,
            device=device,
            start_from=start_from,
        )
        trainer, written = TargetTrainer(run), _dtype(dtype)
        _train(trainer)
        export_target(out, export, written)
    except DFlashError as error:
        _fail(error)
    _report(trainer, export, "target")
    typer.echo(f"model in {export}")


@app.command()
def draft(
    target: Annotated[str, typer.Option(help="Frozen target: folder or hub name.")] = str(TARGET_DIR),
    data: Annotated[str, typer.Option(help="'builtin', or a JSONL file of texts or chats.")] = "builtin",
    out: Annotated[Path, typer.Option(help="Run folder; the draft is written to its subfolder 'draft'.")] = Path(
        "runs/draft"
    ),
    kinds: Kinds = None,
    minutes: Minutes = 30.0,
    steps: Steps = None,
    layers: Annotated[int, typer.Option(help="Draft layers.")] = 2,
    block_size: Annotated[int, typer.Option(help="Positions per block, the anchor included.")] = 16,
    taps: Annotated[int, typer.Option(help="How many target layers are tapped, evenly spread.")] = 4,
    target_layer_ids: Annotated[str | None, typer.Option(help="Tapped layers, such as 0,2,4,6.")] = None,
    mask_token_id: Annotated[int | None, typer.Option(help="Default: the tokenizer's mask token.")] = None,
    regenerate: Annotated[bool, typer.Option(help="Replace answers in --data by the target's own.")] = False,
    anchors: Annotated[int, typer.Option(help="Blocks per row.")] = 16,
    tokens: Annotated[int, typer.Option(help="Target tokens per step.")] = 1536,
    max_length: Annotated[int, typer.Option(help="Longest document, in tokens.")] = 2048,
    gamma: Annotated[float, typer.Option(help="Decay of the loss over a block's positions.")] = 7.0,
    seed: Annotated[int, typer.Option(help="Seed of weights, text and anchors.")] = 7,
    dtype: Dtype = "float32",
    start_from: Start = None,
    threads: Threads = 1,
    device: Device = "auto",
) -> None:
    """Train a DFlash draft on a frozen target; run again with the same --out to resume."""
    given = {
        "target": target,
        "data": data,
        "out": out,
        "kinds": kinds,
        "minutes": minutes,
        "steps": steps,
        "layers": layers,
        "block-size": block_size,
        "taps": taps,
        "target-layer-ids": target_layer_ids,
        "mask-token-id": mask_token_id,
        "regenerate": regenerate,
        "anchors": anchors,
        "tokens": tokens,
        "max-length": max_length,
        "gamma": gamma,
        "seed": seed,
        "dtype": dtype,
        "start-from": start_from,
    }
    device = _start(_arguments("draft", given), threads, device)
    from sglang_dflash.tools.train.draft import DraftRun, DraftTrainer

    try:
        run = DraftRun(
            out,
            minutes,
            seed,
            steps,
            tokens,
            kinds=_split(kinds),
            target=target,
            data=data,
            layers=layers,
            block_size=block_size,
            tap_count=taps,
            target_layer_ids=_ids(target_layer_ids),
            mask_token_id=mask_token_id,
            anchors=anchors,
            max_length=max_length,
            regenerate=regenerate,
            gamma=gamma,
            dtype=_dtype(dtype),
            device=device,
            start_from=start_from,
        )
        trainer = DraftTrainer(run)
        _train(trainer)
    except DFlashError as error:
        _fail(error)
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


def _ids(text: str | None) -> list[int]:
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise DFlashError("target_layer_ids", f"{text!r} is not a list of numbers", "write it as 0,2,4,6") from error


@app.command("eval")
def evaluate_pair(
    target: Annotated[str, typer.Option(help="Target folder or hub name.")] = str(TARGET_DIR),
    draft: Annotated[Path | None, typer.Option(help="Draft folder; 'none' judges answers only.")] = DRAFT_DIR,
    limit: Annotated[int | None, typer.Option(help="Prompts per kind.")] = None,
    kinds: Annotated[str | None, typer.Option(help="Comma-separated kinds; all by default.")] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write everything here.")] = None,
    threads: Threads = 1,
    device: Device = "auto",
) -> None:
    """Right answers and accept lengths per kind on the held-out prompts."""
    arguments = ["eval", "--target", target, "--draft", str(draft)]
    for name, value in (("limit", limit), ("kinds", kinds), ("json", json_out)):
        if value is not None:
            arguments += [f"--{name}", str(value)]
    device = _start(arguments, threads, device)
    from sglang_dflash.tools.pair.heldout import HELDOUT_KINDS
    from sglang_dflash.tools.train.evaluate import evaluate
    from sglang_dflash.tools.train.report import print_table, write_json

    chosen = tuple(kinds.split(",")) if kinds else HELDOUT_KINDS
    try:
        results = evaluate(target, None if str(draft) == "none" else draft, limit, chosen, device)
    except DFlashError as error:
        _fail(error)
    print_table(results)
    if json_out:
        write_json(json_out, results)
