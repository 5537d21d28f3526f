"""``sglang-dflash train questions``, ``answers`` and ``features``: what a draft is trained on."""

from __future__ import annotations

from contextlib import contextmanager
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

Target = Annotated[str, typer.Option(help="Frozen target: folder or hub name.")]
Draft = Annotated[str, typer.Option(help="DFlash draft that speeds the server up; plain decoding by default.")]
Url = Annotated[str, typer.Option(help="A running server; one is started by default.")]
Concurrency = Annotated[int, typer.Option(help="Requests in flight.", min=1)]
Batch = Annotated[int, typer.Option(help="Prompts between two lines of progress.", min=1)]
Questions = Annotated[Path, typer.Option(help="JSONL file of questions.")]


def questions(
    target: Target,
    out: Questions = Path("runs/questions.jsonl"),
    count: Annotated[int, typer.Option(help="How many to keep.")] = 1000,
    avoid: Annotated[
        str, typer.Option(help="Comma-separated prompt sets, or JSONL files, whose near-duplicates are dropped.")
    ] = "human-eval,gsm8k",
    draft: Draft = "",
    url: Url = "",
    concurrency: Concurrency = 32,
    batch: Batch = 64,
) -> None:
    """Sample questions from the target itself; run again to go on."""
    from sglang_dflash.tools.bench.prompt_sets import find_prompts
    from sglang_dflash.tools.bench.prompts import read_records
    from sglang_dflash.tools.train.draft import open_tokenizer
    from sglang_dflash.tools.train.questions import QuestionFilter, write_questions

    try:
        records = [record for name in avoid.split(",") if name for record in read_records(find_prompts(name))]
        wanted = QuestionFilter(record["messages"][-1]["content"] for record in records)
        with _asking(target, draft, url, concurrency) as ask:
            write_questions(ask, open_tokenizer(target), wanted, out, count, batch, typer.echo)
    except DFlashError as error:
        fail(error)


def answers(
    target: Target,
    questions: Questions = Path("runs/questions.jsonl"),
    out: Annotated[Path, typer.Option(help="JSONL file of chats; the data of train features.")] = Path(
        "runs/answers.jsonl"
    ),
    sampled_share: Annotated[float, typer.Option(help="Of the answers, sampled; the others are greedy.")] = 0.15,
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 256,
    seed: Annotated[int, typer.Option(help="Which answers are sampled.")] = 7,
    draft: Draft = "",
    url: Url = "",
    concurrency: Concurrency = 32,
    batch: Batch = 64,
) -> None:
    """Let the target answer the questions; run again to go on."""
    from sglang_dflash.tools.train.answers import write_answers
    from sglang_dflash.tools.train.draft import open_tokenizer

    try:
        with _asking(target, draft, url, concurrency) as ask:
            tokenizer = open_tokenizer(target)
            write_answers(ask, tokenizer, questions, out, sampled_share, max_tokens, seed, batch, typer.echo)
    except DFlashError as error:
        fail(error)


@contextmanager
def _asking(target: str, draft: str, url: str, concurrency: int):
    """``ask(prompts, sampling)`` at a server: a running one, or one of our own with DFLASH where a draft is given."""
    from sglang_dflash.tools.serve import Client, ServerSpec
    from sglang_dflash.tools.serve.console import make_console, started
    from sglang_dflash.tools.serve.log import log_folder

    def at(client: Client):
        return lambda prompts, sampling: client.generate_many(prompts, concurrency, sampling)

    if url:
        client = Client(url)
        yield at(client)
        client.close()
        return
    spec = ServerSpec(target, draft or None, "dflash" if draft else "plain")
    spec = spec.with_flags("--max-running-requests", concurrency)
    with log_folder() as folder, started({"target": spec}, make_console(stderr=True), folder) as servers:
        yield at(servers["target"].client)


def features(
    target: Target,
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
