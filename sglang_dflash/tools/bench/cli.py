"""``sglang-dflash bench`` and what it measures besides."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sglang_dflash.tools.arguments import (
    BlockSize,
    Draft,
    Exact,
    MaxTokens,
    PairName,
    Prompts,
    ServerFlags,
    Target,
    words,
)
from sglang_dflash.tools.extras import require_extra
from sglang_dflash.tools.pair import DRAFT_DIR, HELDOUT_DIR, TARGET_DIR
from sglang_dflash.tools.pair.named import EMBEDDED, find_pair

app = typer.Typer(help="Measurements.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    systems: Annotated[str, typer.Option(help="Comma-separated: plain, builtin, dflash.")] = "plain,builtin,dflash",
    concurrency: Annotated[str, typer.Option(help="Comma-separated requests in flight.")] = "1,4,8,16",
    repeats: Annotated[int, typer.Option(help="Counted repetitions; medians are taken over them.", min=1)] = 5,
    kinds: Annotated[str, typer.Option(help="Comma-separated kinds; default: all deterministic ones.")] = "",
    per_kind: Annotated[int, typer.Option(help="Prompts per kind.", min=1)] = 2,
    longest: Annotated[bool, typer.Option("--longest", help="Of each kind, those with the longest answers.")] = False,
    prompts: Prompts = None,
    max_tokens: MaxTokens = 256,
    pair: PairName = EMBEDDED,
    target: Target = "",
    draft: Draft = "",
    block_size: BlockSize = None,
    exact: Exact = False,
    server_flags: ServerFlags = "",
    stages: Annotated[
        bool | None, typer.Option(help="Time our stages; default: on CPU only, where it costs nothing.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the JSON and the plot go.")] = Path("bench-results"),
) -> None:
    """Measure plain, built-in DFLASH and ours, taking turns in one run."""
    if context.invoked_subcommand is not None:
        return
    require_extra("bench")  # the plot's library
    from sglang_dflash.tools.bench.prompt_sets import find_prompts
    from sglang_dflash.tools.bench.run import BenchOptions, run_bench

    chosen = find_pair(pair, target, draft)
    options = BenchOptions(
        systems=words("systems", systems),
        concurrencies=tuple(int(word) for word in words("concurrency", concurrency, str.isdigit)),
        repeats=repeats,
        kinds=words("kinds", kinds) if kinds else None,
        per_kind=per_kind,
        longest=longest,
        prompts=find_prompts(prompts) if prompts else chosen.prompts,
        max_tokens=max_tokens,
        target=chosen.target,
        draft=chosen.draft,
        flags=tuple(shlex.split(server_flags)),
        block_size=block_size,
        stages=stages,
        exact=exact,
        out=out,
    )
    if not run_bench(options):
        raise typer.Exit(1)


@app.command()
def step(
    target: Annotated[str, typer.Option(help="Qwen3 checkpoint, served in float32.")] = str(TARGET_DIR),
    tokens: Annotated[int, typer.Option(help="Tokens per turn.", min=20)] = 200,
    turns: Annotated[int, typer.Option(help="Turns of each.", min=1)] = 7,
    out: Annotated[Path, typer.Option(help="JSON file that is written.")] = Path("bench-results/step-cost.json"),
) -> None:
    """A plain decode step beside the bare forward pass of the same model."""
    from sglang_dflash.tools.bench.stepcost import run_step_cost

    run_step_cost(target, tokens, turns, out)


@app.command()
def products(threads: Annotated[int, typer.Option(help="Of torch.", min=1)] = 1) -> None:
    """Dense projections on this host: torch's choice of library beside ours."""
    from sglang_dflash.tools.bench.products import run_products

    run_products(threads)


@app.command()
def cost(
    target: Annotated[str, typer.Option(help="Target checkpoint.")] = str(TARGET_DIR),
    draft: Annotated[str, typer.Option(help="DFlash draft checkpoint.")] = str(DRAFT_DIR),
    prompts: Annotated[Path, typer.Option(help="Folder of <kind>.jsonl files, or one file.")] = HELDOUT_DIR,
    batch_sizes: Annotated[str, typer.Option(help="Comma-separated requests per round.")] = "1,4",
    server_flags: ServerFlags = "",
    operations: Annotated[bool, typer.Option(help="Also list the worker's operations by name.")] = False,
    out: Annotated[Path, typer.Option(help="JSON file that is written.")] = Path("bench-results/round-cost.json"),
) -> None:
    """What one round does: launches, syncs, allocations, copies, ours beside the built-in worker's."""
    from sglang_dflash.tools.bench.roundcost import run_round_cost

    run_round_cost(target, draft, prompts, batch_sizes, server_flags, operations, out)


@app.command()
def kernels(as_json: Annotated[bool, typer.Option("--json", help="The table as JSON.")] = False) -> None:
    """Memory traffic of the kernels beside a plain copy."""
    from sglang_dflash.tools.bench.kernelbw import run_kernel_bandwidth

    run_kernel_bandwidth(as_json)
