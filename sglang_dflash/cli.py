"""``sglang-dflash``: one command for everything. Imports torch and SGLang only where a command needs them."""

import json
import os
import runpy
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from sglang_dflash import __version__
from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.pair.named import EMBEDDED, SMOLLM2, find_pair
from sglang_dflash.tools.train.cli import app as train_app

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

app = typer.Typer(
    help="DFlash speculative decoding on SGLang.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)
bench_app = typer.Typer(help="Measurements.", rich_markup_mode=None)
app.add_typer(bench_app, name="bench")
app.add_typer(train_app, name="train")

PairName = Annotated[str, typer.Option("--pair", help=f"{EMBEDDED}, or {SMOLLM2}: a download of 93 MB at first use.")]
Target = Annotated[str, typer.Option(help="Target checkpoint, folder or hub name; default: the pair's.")]
Draft = Annotated[str, typer.Option(help="DFlash draft checkpoint; default: the pair's.")]
Prompts = Annotated[
    str | None,
    typer.Option(help="Folder of <kind>.jsonl files, one file, human-eval, gsm8k or agent; default: the pair's."),
]
MaxTokens = Annotated[int, typer.Option(help="Longest answer, in tokens.")]
BlockSize = Annotated[int | None, typer.Option(help="Positions per block; default: as trained.")]
Exact = Annotated[
    bool, typer.Option("--exact", help="On a GPU: float32 and Triton attention, for answers equal token for token.")
]
ServerFlags = Annotated[str, typer.Option(help="More launch_server arguments, for every server.")]


def main() -> None:
    """Run the command; a DFlashError is one line and exit status 2."""
    try:
        app()
    except DFlashError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


@app.command()
def demo(
    pair: PairName = EMBEDDED,
    target: Target = "",
    draft: Draft = "",
    prompts: Prompts = None,
    questions: Annotated[int, typer.Option(help="How many are shown.", min=1)] = 5,
    measured: Annotated[int, typer.Option(help="How many are measured.", min=1)] = 48,
    max_tokens: MaxTokens = 256,
) -> None:
    """Serve a pair and watch plain decoding and DFLASH give the same answers."""
    from sglang_dflash.tools.bench.prompt_sets import find_prompts
    from sglang_dflash.tools.demo.run import DemoOptions, run_demo

    chosen = find_pair(pair, target, draft)
    source = find_prompts(prompts) if prompts else chosen.prompts
    if not run_demo(DemoOptions(chosen.target, chosen.draft, source, questions, measured, max_tokens)):
        raise typer.Exit(1)


@bench_app.callback(invoke_without_command=True)
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
    from sglang_dflash.tools.bench.prompt_sets import find_prompts
    from sglang_dflash.tools.bench.run import BenchOptions, run_bench

    chosen = find_pair(pair, target, draft)
    options = BenchOptions(
        systems=_words("systems", systems),
        concurrencies=tuple(int(word) for word in _words("concurrency", concurrency, str.isdigit)),
        repeats=repeats,
        kinds=_words("kinds", kinds) if kinds else None,
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


@bench_app.command(context_settings=PASS_ON)
def step(context: typer.Context) -> None:
    """A plain decode step beside the bare forward pass of the same model."""
    _run_module("sglang_dflash.tools.bench.stepcost", context.args)


@bench_app.command(context_settings=PASS_ON)
def products(context: typer.Context) -> None:
    """Dense projections on this host: torch's choice of library beside ours."""
    _run_module("sglang_dflash.tools.bench.products", context.args)


@bench_app.command(context_settings=PASS_ON)
def cost(context: typer.Context) -> None:
    """What one round does: launches, syncs, allocations, copies, ours beside the built-in worker's."""
    _run_module("sglang_dflash.tools.bench.roundcost", context.args)


@bench_app.command(context_settings=PASS_ON)
def kernels(context: typer.Context) -> None:
    """Memory traffic of the kernels beside a plain copy."""
    _run_module("sglang_dflash.tools.bench.kernelbw", context.args)


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="The question.")],
    url: Annotated[str, typer.Option(help="A running server; default: start the embedded pair.")] = "",
    max_tokens: MaxTokens = 256,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    pair: PairName = EMBEDDED,
    target: Target = "",
    draft: Draft = "",
    exact: Exact = False,
) -> None:
    """Answer one question, streamed."""
    from sglang_dflash.tools.demo.ask import answer_once

    chosen = None if url else find_pair(pair, target, draft)
    answer_once(prompt, url, {"max_tokens": max_tokens, "temperature": temperature}, chosen, exact)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(
    context: typer.Context,
    port: Annotated[int, typer.Option(help="TCP port.")] = 30000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
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
        os.execve(command[0], command, spec.environment(gpu=gpu))


@app.command("pair")
def make_pair(
    name: Annotated[str, typer.Argument(help=f"{EMBEDDED} or {SMOLLM2}.")],
    dtype: Annotated[str, typer.Option(help=f"float32 or bfloat16, for {SMOLLM2}.")] = "float32",
) -> None:
    """Make a pair ready for use, and print where target and draft lie; made once, offline after that."""
    found = find_pair(name, dtype=dtype)
    print(f"target {found.target}\ndraft {found.draft}")


@app.command()
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


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def launch(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A name of the catalogue, or a target's hub name.")],
    port: Annotated[int, typer.Option(help="TCP port.")] = 30000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
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


@app.command()
def check(
    target: Annotated[str, typer.Argument(help="Folder, or hub name in the cache; default: the embedded pair.")] = "",
    draft: Annotated[str, typer.Argument(help="Folder, or hub name in the cache.")] = "",
    context: Annotated[int | None, typer.Option(help="Tokens per request.", min=1)] = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests in flight.", min=1)] = None,
    block_size: BlockSize = None,
    tp: Annotated[int, typer.Option(help="Ranks that share each layer.", min=1)] = 1,
    kv_dtype: Annotated[str, typer.Option(help="auto, fp8_e4m3, fp8_e5m2, bf16.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, bfloat16, float16, float32.")] = "auto",
    window: Annotated[int | None, typer.Option(help="Draft window, in tokens.", min=1)] = None,
    attention: Annotated[str | None, typer.Option(help="The target's attention backend.")] = None,
    draft_attention: Annotated[str | None, typer.Option(help="The draft's attention backend.")] = None,
    page_size: Annotated[int | None, typer.Option(help="Tokens per page.", min=1)] = None,
    thinking: Annotated[str | None, typer.Option(help="on or off: how requests will ask.")] = None,
    gpu: Annotated[str, typer.Option(help="Compute capability, such as 9.0; default: this machine.")] = "",
    gpu_memory: Annotated[float, typer.Option(help="GiB of one such GPU.", min=1)] = 80,
    gpus: Annotated[int, typer.Option(help="How many of them.", min=1)] = 8,
    run: Annotated[bool, typer.Option("--run", help="Serve the pair as well, and compare with the reference.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
) -> None:
    """Does a draft fit a target, and how are they served here? Exit status 0 fits, 1 problems, 2 cannot read."""
    from sglang_dflash.checkpoints.checks.case import Plan
    from sglang_dflash.tools.doctor import machine, report, setup
    from sglang_dflash.tools.doctor.check import check, check_and_run
    from sglang_dflash.tools.serve.console import make_console

    console = make_console(stderr=as_json)
    if bool(target) != bool(draft):
        raise DFlashError("DRAFT", "is missing", "give a target and its draft, or neither for the embedded pair")
    if not target:
        setup.check_setup(console)
        target, draft, _ = find_pair(EMBEDDED)
    plan = Plan(
        block_size=block_size,
        window=window,
        tp_size=tp,
        context_length=context,
        concurrency=concurrency,
        dtype=dtype,
        kv_dtype=_one_of("--kv-dtype", kv_dtype, ("auto", "fp8_e4m3", "fp8_e5m2", "bf16")),
        attention=attention,
        draft_attention=draft_attention,
        page_size=page_size,
        thinking=thinking and _one_of("--thinking", thinking, ("on", "off")),
    )
    where = machine.imagined(gpu, gpu_memory, gpus) if gpu else machine.this_machine()
    found = check(target, draft, plan, where)
    if run:
        found = check_and_run(found, console)
    if as_json:
        print(json.dumps(report.as_json(found), indent=1))
    else:
        report.show(found, console)
    raise typer.Exit(found.exit_code)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def _words(field: str, text: str, valid=bool) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(","))
    if not all(map(valid, words)):
        raise DFlashError(field, f"is {text!r}", "give a comma-separated list, such as the default")
    return words


def _one_of(field: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise DFlashError(field, f"is {value!r}", f"use one of {', '.join(choices)}")
    return value


def _run_module(name: str, arguments: list[str]) -> None:
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)
