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
    json_object,
    words,
)
from sglang_dflash.tools.extras import require_extra
from sglang_dflash.tools.pair import DRAFT_DIR, HELDOUT_DIR, TARGET_DIR
from sglang_dflash.tools.pair.named import EMBEDDED, PACES, find_pair

Systems = Annotated[
    str, typer.Option(help="Comma-separated: plain, builtin, dflash, adaptive, block-2, ..., one-node, transformers.")
]

app = typer.Typer(help="Measurements.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    systems: Systems = "plain,builtin,dflash",
    concurrency: Annotated[str, typer.Option(help="Comma-separated requests in flight; default: the pair's.")] = "",
    repeats: Annotated[int | None, typer.Option(help="Counted repetitions; default: the pair's.", min=1)] = None,
    kinds: Annotated[str, typer.Option(help="Comma-separated kinds; default: all deterministic ones.")] = "",
    per_kind: Annotated[int | None, typer.Option(help="Prompts per kind; default: the pair's.", min=1)] = None,
    longest: Annotated[bool, typer.Option("--longest", help="Of each kind, those with the longest answers.")] = False,
    prompts: Prompts = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer; default: the pair's.", min=1)] = None,
    sampling: Annotated[
        str, typer.Option(help="Sampling parameters of all requests, as JSON, such as '{\"temperature\": 1}'.")
    ] = "",
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
    from sglang_dflash.tools.bench.prompt_sets import find_all_prompts
    from sglang_dflash.tools.bench.run import BenchOptions, run_bench

    chosen, pace = find_pair(pair, target, draft), PACES[pair]
    options = BenchOptions(
        systems=words("systems", systems),
        concurrencies=tuple(int(word) for word in words("concurrency", concurrency or pace.concurrencies, str.isdigit)),
        repeats=repeats or pace.repeats,
        streamed=pace.streamed,
        kinds=words("kinds", kinds) if kinds else None,
        per_kind=per_kind,
        count=pace.prompts,
        longest=longest,
        prompts=find_all_prompts(prompts) if prompts else [chosen.prompts],
        max_tokens=max_tokens or pace.max_tokens,
        target=chosen.target,
        draft=chosen.draft,
        sampling=json_object("sampling", sampling),
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
def passes(
    pair: PairName = EMBEDDED,
    target: Target = "",
    draft: Draft = "",
    block_size: BlockSize = None,
    requests: Annotated[str, typer.Option(help="Comma-separated requests in flight.")] = "1,2,4,8",
    threads: Annotated[int, typer.Option(help="Of servers and products; 0: all cores.", min=0)] = 0,
    tokens: Annotated[int, typer.Option(help="Tokens of an answer.", min=2)] = 48,
    turns: Annotated[int, typer.Option(help="Counted turns.", min=1)] = 5,
    out: Annotated[Path, typer.Option(help="JSON file that is written.")] = Path("bench-results/pass-cost.json"),
) -> None:
    """On a CPU: plain steps, verify passes and rounds beside the target's products alone."""
    from sglang_dflash.tools.bench.passcost import run_pass_cost

    chosen = find_pair(pair, target, draft)
    counts = [int(word) for word in words("requests", requests, str.isdigit)]
    run_pass_cost(chosen.target, chosen.draft, block_size, counts, threads, tokens, turns, out)


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
def equality(
    pair: PairName = EMBEDDED,
    target: Target = "",
    draft: Draft = "",
    prompts: Prompts = None,
    per_kind: Annotated[int | None, typer.Option(help="Prompts per kind; default: all.", min=1)] = None,
    max_tokens: MaxTokens = 96,
    concurrency: Annotated[str, typer.Option(help="Comma-separated requests in flight.")] = "1,8",
    overlap: Annotated[str, typer.Option(help="Comma-separated: off, on.")] = "off,on",
    transformers: Annotated[int, typer.Option(help="Prompts that the library answers, too.", min=0)] = 0,
    server_flags: ServerFlags = "",
    out: Annotated[Path, typer.Option(help="Folder of the answers; run again to go on.")] = Path("runs/equality"),
) -> None:
    """Greedy answers to whole prompt sets beside plain decoding's, token for token; ties are counted."""
    from sglang_dflash.tools.bench.equal import EqualOptions, run_equality
    from sglang_dflash.tools.bench.prompt_sets import find_all_prompts
    from sglang_dflash.tools.bench.prompts import load_prompts, prompt_room

    chosen, flags = find_pair(pair, target, draft), shlex.split(server_flags)
    source = find_all_prompts(prompts) if prompts else chosen.prompts
    room = prompt_room(chosen.target, max_tokens, flags)
    options = EqualOptions(
        target=chosen.target,
        draft=chosen.draft,
        prompts=tuple(load_prompts(chosen.target, source, per_kind=per_kind, room=room)),
        max_tokens=max_tokens,
        concurrencies=tuple(int(word) for word in words("concurrency", concurrency, str.isdigit)),
        overlaps=words("overlap", overlap),
        hub_prompts=transformers,
        flags=tuple(flags),
        out=out,
    )
    if not run_equality(options):
        raise typer.Exit(1)


@app.command()
def kernels(as_json: Annotated[bool, typer.Option("--json", help="The table as JSON.")] = False) -> None:
    """Memory traffic of the kernels beside a plain copy."""
    from sglang_dflash.tools.bench.kernelbw import run_kernel_bandwidth

    run_kernel_bandwidth(as_json)
