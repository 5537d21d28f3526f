"""``sglang-dflash bench``: start, measure, compare, print, write."""

import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.bench.equality import HALF_TIE, TIE, Comparison, compare
from sglang_dflash.tools.bench.hub import HubSystem
from sglang_dflash.tools.bench.measure import Plan, Turn, measure
from sglang_dflash.tools.bench.memory import gpu_bytes, peak_bytes
from sglang_dflash.tools.bench.plot import save_plot
from sglang_dflash.tools.bench.progress import batches
from sglang_dflash.tools.bench.prompts import Prompt, kinds_in, load_prompts, prompt_room
from sglang_dflash.tools.bench.provenance import provenance
from sglang_dflash.tools.bench.report import print_report, ratios
from sglang_dflash.tools.bench.stages import StageLog
from sglang_dflash.tools.bench.summary import Cell, repeated_share, summarise
from sglang_dflash.tools.bench.systems import HUB, LABELS, build_specs, fitting, pool_flags
from sglang_dflash.tools.pair.kinds import FREE_KINDS
from sglang_dflash.tools.serve import ServerProcess
from sglang_dflash.tools.serve.console import make_console, started
from sglang_dflash.tools.serve.log import log_folder
from sglang_dflash.tools.serve.spec import accelerator_present

IDLE_SECONDS = 2.0
SEED = 20260206  # of the prompts' order


@dataclass(frozen=True)
class BenchOptions:
    """What the command line asked for."""

    systems: tuple[str, ...]
    concurrencies: tuple[int, ...]
    repeats: int
    streamed: int  # repetitions that stream, at most ``repeats``
    kinds: tuple[str, ...] | None  # None: every kind whose answers are a function of the prompt
    per_kind: int | None  # None: as many as make up ``count``
    count: int  # prompts over all kinds
    longest: bool
    prompts: Sequence[Path]
    max_tokens: int
    sampling: Mapping  # parameters of every request besides
    target: str
    draft: str
    flags: tuple[str, ...]
    block_size: int | None
    stages: bool | None  # None: where timing needs no waiting for the device
    exact: bool  # float32, where an accelerator would take bfloat16
    out: Path

    def __post_init__(self):
        for name in self.systems:
            if name not in LABELS:
                raise DFlashError("systems", f"has {name!r}", f"use some of {', '.join(LABELS)}")
        if min(self.concurrencies) < 1:
            raise DFlashError("concurrency", "has a value under 1", "give whole numbers from 1")
        if self.sampling and HUB in self.systems:
            raise DFlashError("sampling", f"{HUB} is measured greedy", "leave one of the two out")

    @property
    def request(self) -> dict:
        """Sampling parameters of every request."""
        return {"temperature": 0.0, "max_new_tokens": self.max_tokens} | dict(self.sampling)

    @property
    def draws(self) -> bool:
        """Whether answers are drawn, so that no two need to be the same."""
        return self.request["temperature"] > 0


def run_bench(options: BenchOptions) -> bool:
    """Measure and report; False where the outputs differed."""
    console = make_console()
    prompts = _prompts(options, console)
    systems = fitting(options.systems)
    for name in set(options.systems) - set(systems) - {HUB}:
        console.print(f"Not enough memory for {len(options.systems)} servers: without {name}.")
    stages = not accelerator_present() if options.stages is None else options.stages
    with log_folder() as folder:
        stage_log = StageLog(folder / "rounds.jsonl")
        timings = stage_log.path if stages else None
        flags = (*pool_flags(prompts, max(options.concurrencies), options.max_tokens), *options.flags)
        specs = build_specs(systems, options.target, options.draft, flags, options.block_size, timings, options.exact)
        console.print(f"Starting {len(specs)} servers, {len(prompts)} prompts each turn")
        with started(specs, console, folder) as servers:
            origin = provenance()
            idle = _idle_share(servers)
            every = {HUB: HubSystem(options.target), **servers} if HUB in options.systems else servers
            plan = Plan(options.concurrencies, options.repeats, min(options.repeats, options.streamed))
            with batches(console) as progress:
                turns = measure(every, prompts, plan, options.request, stage_log, progress)
            judge = servers["plain"].client if "plain" in servers else None
            limit = TIE if options.exact or not accelerator_present() else HALF_TIE
            comparison = Comparison(0, []) if options.draws else compare(turns, prompts, judge, limit)
            memory = {
                name: {"peak_bytes": peak_bytes(server), "gpu_bytes": gpu_bytes(server), "idle_cpu": idle[name]}
                for name, server in servers.items()
            }
            commands = {name: server.command for name, server in servers.items()}
    cells = summarise(turns)
    about = origin["machine"]
    console.print(f"{about['cpu']}, {about['cores']} cores, load average before: {about['load_average'][0]}")
    print_report(console, cells, comparison, memory)
    document = {
        **origin,
        "servers": commands,
        "options": _plain_options(options),
        "seed": SEED,
        "prompts": [prompt.id for prompt in prompts],
        "memory": memory,
        **_results(turns, cells, comparison),
    }
    _write(console, options, document, cells, comparison)
    return not comparison.wrong


def _prompts(options: BenchOptions, console: Console) -> list[Prompt]:
    kinds = options.kinds
    if kinds is None:
        kinds = [kind for kind in kinds_in(options.prompts) if kind not in FREE_KINDS]
    per_kind = options.per_kind or -(-options.count // len(kinds))
    room = prompt_room(options.target, options.max_tokens, options.flags)
    prompts = load_prompts(options.target, options.prompts, kinds, per_kind, options.longest, room, console.print)
    if len(prompts) < max(options.concurrencies):
        raise DFlashError(
            "concurrency",
            f"is {max(options.concurrencies)}, and there are {len(prompts)} prompts",
            "take more of them with --per-kind, or fewer in flight",
        )
    random.Random(SEED).shuffle(prompts)
    return prompts


def _idle_share(servers: Mapping[str, ServerProcess]) -> dict[str, float]:
    """Processor share that each idle server uses: others would pay for it."""
    before = {name: server.cpu_seconds() for name, server in servers.items()}
    time.sleep(IDLE_SECONDS)
    return {name: (server.cpu_seconds() - before[name]) / IDLE_SECONDS for name, server in servers.items()}


def _plain_options(options: BenchOptions) -> dict:
    return asdict(options) | {"prompts": [str(path) for path in options.prompts], "out": str(options.out)}


def _results(turns: Sequence[Turn], cells: Sequence[Cell], comparison: Comparison) -> dict:
    return {
        "identical": None if not comparison.answers else not comparison.wrong,
        "answers": comparison.answers,
        "tie_below_nats": comparison.limit,
        "differences": [{**entry._asdict(), "tie": entry.tie} for entry in comparison.differences],
        "cells": [{**cell._asdict(), "acceptance": cell.acceptance._asdict()} for cell in cells],
        "ratios": ratios(cells, comparison.wrong_systems),
        "repeated_4grams": repeated_share(turns[0].answers),
        "turns": [
            {
                "system": turn.system,
                "concurrency": turn.concurrency,
                "repeat": turn.repeat,
                "streamed": turn.streamed,
                "seconds": turn.seconds,
                "cpu_seconds": turn.cpu_seconds,
                "tokens": turn.tokens,
            }
            for turn in turns
        ],
    }


def _write(console: Console, options: BenchOptions, document: dict, cells, comparison) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / document["time"].replace(":", "").replace("+0000", "Z")
    # Relative paths: a result tells nothing about the folder it was made in.
    text = json.dumps(document, indent=1, default=str).replace(f"{Path.cwd()}/", "")
    stem.with_suffix(".json").write_text(text + "\n")
    machine = document["machine"]
    title = f"{', '.join(machine['gpus']) or machine['cpu']}; {Path(options.target).name}; commit {document['commit']}"
    save_plot(cells, stem.with_suffix(".png"), title, comparison.wrong_systems)
    console.print(f"Written: {stem}.json and .png")
