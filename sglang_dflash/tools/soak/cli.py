"""``sglang-dflash soak``."""

import shlex
from typing import Annotated

import typer

from sglang_dflash.tools.arguments import Draft, PairName, ServerFlags, Target
from sglang_dflash.tools.pair.named import EMBEDDED, find_pair


def soak(
    minutes: Annotated[float, typer.Option(help="How long requests come and go.")] = 20.0,
    clients: Annotated[int, typer.Option(help="Requests in flight at high tide.", min=1)] = 12,
    kv_tokens: Annotated[int, typer.Option(help="Tokens of the KV pool: few, so that requests are retracted.")] = 512,
    pair: PairName = EMBEDDED,
    target: Target = "",
    draft: Draft = "",
    server_flags: ServerFlags = "",
    seed: Annotated[int, typer.Option(help="Of prompts and clients.")] = 1,
) -> None:
    """Requests join, leave, are aborted and retracted, clients hang up: is the server exact, and empty afterwards?"""
    from sglang_dflash.tools.soak.run import SoakOptions, run_soak

    chosen, flags = find_pair(pair, target, draft), tuple(shlex.split(server_flags))
    if run_soak(SoakOptions(*chosen, minutes, clients, kv_tokens, flags=flags, seed=seed)).problems:
        raise typer.Exit(1)
