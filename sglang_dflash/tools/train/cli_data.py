"""``sglang-dflash train features``: what a draft is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.train.cli_options import (
    Compute,
    Device,
    LayerIds,
    TapCount,
    Threads,
    dtype_of,
    fail,
    ids_of,
    start,
)


def features(
    target: Annotated[str, typer.Option(help="Frozen target: folder or hub name.")],
    data: Annotated[Path, typer.Option(help="JSONL file of texts or chats.")],
    out: Annotated[Path, typer.Option(help="Folder of the features; the data of train draft.")],
    taps: TapCount = 5,
    target_layer_ids: LayerIds = None,
    max_length: Annotated[int, typer.Option(help="Longest document, in tokens.")] = 2048,
    heldout_share: Annotated[float, typer.Option(help="Of the prompts; never trained on.")] = 0.03,
    tokens: Annotated[int, typer.Option(help="Tokens per target pass.")] = 2048,
    compute: Compute = "float32",
    threads: Threads = 1,
    device: Device = "auto",
) -> None:
    """Write the target's features of a data set, once for all epochs; run again to go on."""
    device = start("features", locals())
    import torch

    from sglang_dflash.tools.train.draft import open_tokenizer
    from sglang_dflash.tools.train.draft_io import check_taps, default_taps
    from sglang_dflash.tools.train.features import FeatureWriter, read_records, write_features
    from sglang_dflash.tools.train.frozen import open_target

    try:
        dtype, frozen = dtype_of(compute, "compute"), open_target(target, device)
        layers = ids_of(target_layer_ids) or default_taps(frozen.num_layers, taps)
        check_taps(layers, frozen.num_layers)
        records = read_records(data, open_tokenizer(target), max_length, heldout_share)
        writer = FeatureWriter(out, target, layers, frozen.hidden_size)
        with torch.autocast(torch.device(device).type, dtype, dtype != torch.float32):
            write_features(writer, frozen, records, tokens, _say_progress)
    except DFlashError as error:
        fail(error)
    typer.echo(f"{writer.documents} documents, {writer.tokens} tokens in {out}")


def _say_progress(done: int, count: int) -> None:
    typer.echo(f"{done} of {count} documents")
