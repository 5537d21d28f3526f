"""``sglang-dflash serve``, ``models`` and ``launch``."""

import json
import os
import shlex
from typing import Annotated

import typer

from sglang_dflash.tools.arguments import Draft, Exact, PairName, Target
from sglang_dflash.tools.pair.named import EMBEDDED, find_pair

Port = Annotated[int, typer.Option(help="TCP port.")]
Host = Annotated[str, typer.Option(help="Address to listen on.")]


def serve(
    context: typer.Context,
    port: Port = 30000,
    host: Host = "127.0.0.1",
    worker: Annotated[str, typer.Option(help="dflash, builtin or plain.")] = "dflash",
    pair: PairName = EMBEDDED,
    target: Target = "",
    draft: Draft = "",
    exact: Exact = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the command.")] = False,
) -> None:
    """Serve a pair in the foreground; further arguments go to SGLang."""
    from sglang_dflash.tools.serve.spec import ServerSpec, accelerator_present

    chosen = find_pair(pair, target, draft)
    draft_path = None if worker == "plain" else chosen.draft
    spec = ServerSpec(chosen.target, draft_path, worker, tuple(context.args), exact=exact)
    gpu = accelerator_present()
    command = spec.command(port, host, gpu)
    print(shlex.join(command), flush=True)
    if not dry_run:
        os.execve(command[0], command, spec.environment())


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Every field, as JSON.")] = False,
) -> None:
    """List the published targets, their drafts, and what was measured."""
    from sglang_dflash.checkpoints.catalogue import load_catalogue, tables
    from sglang_dflash.tools.serve.console import make_console

    if as_json:
        print(json.dumps(tables.as_json(load_catalogue()), indent=1))
        return
    make_console().print(tables.terminal_table(load_catalogue()))


def launch(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A name of the catalogue, or a target's hub name.")],
    port: Port = 30000,
    host: Host = "127.0.0.1",
    gpu: Annotated[str, typer.Option(help="Compute capability, such as 9.0; default: this machine's.")] = "",
    run: Annotated[bool, typer.Option("--run", help="Run the command instead of only printing it.")] = False,
) -> None:
    """Print the command that serves a published target; further arguments go to SGLang."""
    from sglang_dflash.checkpoints.catalogue import load_catalogue
    from sglang_dflash.checkpoints.catalogue.command import command, generation_of, this_generation

    entry = load_catalogue().find(model)
    generation = generation_of(gpu) if gpu else this_generation()
    words = command(entry, generation, host=host, port=port, arguments=context.args)
    settings = [f"{name}={value}" for name, value in entry.environment.items() if name not in os.environ]
    print(" ".join([*settings, shlex.join(words)]), flush=True)
    if run:
        os.execve(words[0], words, dict(entry.environment) | dict(os.environ))
