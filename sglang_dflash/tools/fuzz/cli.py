"""``sglang-dflash fuzz``."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sglang_dflash.tools.arguments import Draft, PairName, ServerFlags, Target, one_of
from sglang_dflash.tools.pair.named import EMBEDDED, find_pair

WORKERS = ("dflash", "builtin")


def fuzz(
    requests: Annotated[int, typer.Option(help="How many are compared.", min=1)] = 1000,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 1,
    clients: Annotated[int, typer.Option(help="The most requests in flight.", min=1)] = 32,
    worker: Annotated[str, typer.Option(help="dflash, or builtin: who is compared with plain decoding.")] = "dflash",
    only: Annotated[str, typer.Option(help="Comma-separated features; default: all.")] = "",
    without: Annotated[str, typer.Option(help="Comma-separated features that are left out.")] = "",
    worker_flags: Annotated[str, typer.Option(help="More launch_server arguments, for the server under test.")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder for the requests that reproduce what is wrong.")] = None,
    again: Annotated[Path | None, typer.Option("--replay", help="A file of such requests: nothing is drawn.")] = None,
    pair: PairName = EMBEDDED,
    target: Target = "",
    draft: Draft = "",
    server_flags: ServerFlags = "",
) -> None:
    """Random requests that mix what a server can be asked for, on a plain server and on another: are answers equal?"""
    from rich.console import Console

    from sglang_dflash.tools.fuzz.judge import Verdict
    from sglang_dflash.tools.fuzz.report import print_result
    from sglang_dflash.tools.fuzz.requests import Request
    from sglang_dflash.tools.fuzz.run import FuzzOptions, replay, run_fuzz

    options = FuzzOptions(
        *find_pair(pair, target, draft),
        requests=requests,
        seed=seed,
        clients=clients,
        worker=one_of("--worker", worker, WORKERS),
        features=chosen_features(only, without),
        flags=tuple(shlex.split(server_flags)),
        worker_flags=tuple(shlex.split(worker_flags)),
    )
    console = Console()
    if again is not None:
        findings = replay(options, [Request.read(line) for line in again.read_text().splitlines()], times=3)
        for finding in findings:
            console.print(f"{finding.verdict.value}: {finding.what}", markup=False, soft_wrap=True)
        raise typer.Exit(int(any(finding.verdict is Verdict.WRONG for finding in findings)))
    result = run_fuzz(options, say=lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True))
    print_result(console, result)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for number, wrong in enumerate(result.wrong, 1):
            (out / f"wrong-{number}.jsonl").write_text("".join(r.written() + "\n" for r in wrong.requests))
    raise typer.Exit(int(result.failed))


def chosen_features(only: str, without: str):
    """The features named, or all, less those left out; DFlashError where one is unknown."""
    from sglang_dflash.tools.fuzz.features import FEATURES

    names = tuple(feature.name for feature in FEATURES)
    kept = [one_of("--only", name.strip(), names) for name in only.split(",") if name.strip()] or list(names)
    left_out = [one_of("--without", name.strip(), names) for name in without.split(",") if name.strip()]
    return tuple(feature for feature in FEATURES if feature.name in kept and feature.name not in left_out)
