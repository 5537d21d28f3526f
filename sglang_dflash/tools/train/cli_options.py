"""Options and small helpers that the training commands share."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from sglang_dflash.errors import DFlashError

Minutes = Annotated[float, typer.Option(help="Training time; the learning rate decays to its end.")]
Threads = Annotated[int, typer.Option(help="CPU threads.")]
Start = Annotated[Path | None, typer.Option(help="Folder of weights to begin with, instead of random ones.")]
Steps = Annotated[int | None, typer.Option(help="Length of the run in steps, instead of --minutes.")]
Kinds = Annotated[str | None, typer.Option(help="Comma-separated kinds of the built-in text; all by default.")]
Dtype = Annotated[str, typer.Option(help="Of the finished weights: float32 or bfloat16.")]
Compute = Annotated[str, typer.Option(help="Of the products: float32, or bfloat16 where the processor has it.")]
TapCount = Annotated[int, typer.Option(help="How many target layers are tapped, evenly spread.")]
LayerIds = Annotated[str | None, typer.Option(help="Tapped layers, such as 0,2,4,6.")]
Device = Annotated[str, typer.Option(help="torch device; 'auto' takes a GPU where there is one.")]


def start(command: str, options: dict[str, object]) -> str:
    """CPU settings (may restart the process once), and the device to use.

    ``options`` are all parameters of ``command`` by their names, threads and device among them.
    """
    from sglang_dflash.tools.train.fastenv import restart_with_fast_malloc

    restart_with_fast_malloc(arguments_of(command, options), options["threads"])
    import torch

    torch.set_num_threads(options["threads"])
    device = options["device"]
    return device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")


def settings(kind: type, options: dict[str, object], **converted: object) -> dict[str, object]:
    """Arguments of the dataclass ``kind``: options of its fields' names, and what was made of others."""
    named = {field.name: options[field.name] for field in fields(kind) if field.name in options}
    return named | converted


def fail(error: DFlashError) -> None:
    """One line, exit status 2."""
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(2)


def arguments_of(command: str, options: dict[str, object]) -> list[str]:
    """The command line that gives these options again; a flag's value is a bool."""
    out = [command]
    for parameter, value in options.items():
        name = parameter.removesuffix("_out").replace("_", "-")
        if isinstance(value, bool):
            out += [f"--{name}"] if value else []
        elif value is not None:
            out += [f"--{name}", str(value)]
    return out


def dtype_of(name: str, field: str = "dtype"):
    """The torch dtype of that name."""
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name not in known:
        raise DFlashError(field, f"is {name!r}", "float32 or bfloat16")
    return known[name]


def split(kinds: str | None) -> tuple[str, ...]:
    """Words of a comma-separated list; none where it is missing."""
    return tuple(kinds.split(",")) if kinds else ()


def ids_of(text: str | None, field: str = "target_layer_ids") -> list[int]:
    """Numbers from a comma-separated list."""
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise DFlashError(field, f"{text!r} is not a list of numbers", "write it as 0,2,4,6") from error
