"""``sglang-dflash check``."""

import json
from typing import Annotated

import typer

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.arguments import BlockSize, one_of
from sglang_dflash.tools.pair.named import EMBEDDED, find_pair


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
        kv_dtype=one_of("--kv-dtype", kv_dtype, ("auto", "fp8_e4m3", "fp8_e5m2", "bf16")),
        attention=attention,
        draft_attention=draft_attention,
        page_size=page_size,
        thinking=thinking and one_of("--thinking", thinking, ("on", "off")),
    )
    where = machine.simulated(gpu, gpu_memory, gpus) if gpu else machine.this_machine()
    found = check(target, draft, plan, where)
    if run:
        found = check_and_run(found, console)
    if as_json:
        print(json.dumps(report.as_json(found), indent=1))
    else:
        report.show(found, console)
    raise typer.Exit(found.exit_code)
