"""``sglang-dflash bench equality``: every greedy answer to whole prompt sets, compared with plain decoding's."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.bench.answers import Answer, AnswerFile, fill
from sglang_dflash.tools.bench.equality import TIE, Comparison, first_difference, judged
from sglang_dflash.tools.bench.hub import HubModel
from sglang_dflash.tools.bench.prompts import Prompt
from sglang_dflash.tools.bench.provenance import provenance
from sglang_dflash.tools.bench.report import number, plain_table
from sglang_dflash.tools.bench.summary import kept_by_position
from sglang_dflash.tools.bench.systems import pool_flags
from sglang_dflash.tools.serve import ServerProcess, ServerSpec
from sglang_dflash.tools.serve.console import make_console, started
from sglang_dflash.tools.serve.log import log_folder

ABOUT, RESULT = "about.json", "result.json"
NEWS = 30.0  # seconds between two lines of progress
BATCHES = 4  # prompts between two writes, per request in flight
# Both words of --overlap, as a server's flags and environment; on the CPU platform it is off by default.
OVERLAP: dict[str, Callable[[ServerSpec], ServerSpec]] = {
    "off": lambda spec: spec.with_flags("--disable-overlap-schedule"),
    "on": lambda spec: spec.with_env(SGLANG_DFLASH_CPU_OVERLAP="on"),
}


@dataclass(frozen=True)
class EqualOptions:
    """What the command line asked for."""

    target: str
    draft: str
    prompts: tuple[Prompt, ...]
    max_tokens: int
    concurrencies: tuple[int, ...]
    overlaps: tuple[str, ...]
    hub_prompts: int  # how many are answered by transformers, too; evenly spread
    flags: tuple[str, ...]
    out: Path

    def __post_init__(self):
        for name in self.overlaps:
            if name not in OVERLAP:
                raise DFlashError("overlap", f"has {name!r}", f"use some of {', '.join(OVERLAP)}")
        if min(self.concurrencies) < 1:
            raise DFlashError("concurrency", "has a value under 1", "give whole numbers from 1")

    def spread(self) -> list[Prompt]:
        """The prompts that transformers answers."""
        count = min(self.hub_prompts, len(self.prompts))
        return [self.prompts[i * len(self.prompts) // count] for i in range(count)]


def run_equality(options: EqualOptions, make=ServerProcess) -> bool:
    """Ask for what the folder lacks, compare, report; False where an answer differed.

    Plain decoding's answers are asked for once, at the highest concurrency, and everything is compared with them.
    Servers run one at a time. ``make`` as of ``started`` (tests).

    Raises:
        DFlashError: the folder holds answers of another target or length.
    """
    console = make_console()
    _check_folder(options)
    files = {"plain": AnswerFile(options.out / "plain.jsonl")}
    with log_folder() as logs:
        flags = (*pool_flags(options.prompts, max(options.concurrencies), options.max_tokens), *options.flags)
        plain = ServerSpec(options.target, flags=flags, exact=True)
        _ask_server(options, plain, {"plain": max(options.concurrencies)}, files, console, logs, make)
        if options.hub_prompts:
            files["transformers"] = AnswerFile(options.out / "transformers.jsonl")
            _ask_hub(options, files["transformers"], console)
        pair = ServerSpec(options.target, options.draft, "dflash", flags, exact=True)
        for overlap in options.overlaps:
            labels = {f"overlap {overlap}, {n} in flight": n for n in options.concurrencies}
            for label in labels:
                name = label.replace(",", "").replace(" ", "-")
                files[label] = AnswerFile(options.out / f"dflash-{_identity(options)}-{name}.jsonl")
            _ask_server(options, OVERLAP[overlap](pair), labels, files, console, logs, make)
        comparisons = _compare(options, plain, files, console, logs, make)
    _report(options, files, comparisons, console)
    return not any(comparison.wrong for comparison in comparisons.values())


def _check_folder(options: EqualOptions) -> None:
    about = {"target": options.target, "max_tokens": options.max_tokens}
    path = options.out / ABOUT
    if path.exists() and json.loads(path.read_text()) != about:
        raise DFlashError("out", f"{options.out} holds answers of another target or length", "choose another folder")
    options.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(about) + "\n")


def _identity(options: EqualOptions) -> str:
    """Tells answers under one draft and set of flags from those under others."""
    folder = Path(options.draft)
    digest = hashlib.sha256(repr(options.flags).encode())
    if folder.is_dir():
        for path in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
            digest.update(path.read_bytes())
    else:
        digest.update(options.draft.encode())
    return digest.hexdigest()[:8]


def _ask_server(options, spec, labels: dict[str, int], files, console, logs, make) -> None:
    """Fill the files of ``labels`` from one server, started where something is missing."""
    if not any(files[label].missing(options.prompts) for label in labels):
        return
    sampling = {"temperature": 0.0, "max_new_tokens": options.max_tokens}
    with started({spec.worker: spec}, console, logs, make) as servers:
        server = servers[spec.worker]
        for label, concurrency in labels.items():

            def ask(prompts: Sequence[Prompt], concurrency=concurrency) -> list[Answer]:
                ids = [prompt.token_ids for prompt in prompts]
                found = server.watched(lambda: server.client.generate_many(ids, concurrency, sampling))
                return [Answer(one.token_ids, one.correct_drafts_histogram) for one in found]

            fill(files[label], options.prompts, ask, BATCHES * concurrency, _news(console, label))


def _ask_hub(options: EqualOptions, file: AnswerFile, console: Console) -> None:
    if not file.missing(options.spread()):
        return
    model = HubModel(options.target)

    def ask(prompts: Sequence[Prompt]) -> list[Answer]:
        return [Answer(model.generate([prompt.token_ids], options.max_tokens)[0]) for prompt in prompts]

    fill(file, options.spread(), ask, BATCHES, _news(console, "transformers"))


def _news(console: Console, label: str) -> Callable[[int, int], None]:
    """A line now and then, and one at the end."""
    told = time.monotonic()

    def say(done: int, count: int) -> None:
        nonlocal told
        if done == count or time.monotonic() - told >= NEWS:
            told = time.monotonic()
            console.print(f"{label}: {done} of {count} answers")

    return say


def _compare(options, plain: ServerSpec, files, console, logs, make) -> dict[str, Comparison]:
    """Each file against plain decoding; the plain server is started again where two tokens must be weighed."""
    asked = {label: options.spread() if label == "transformers" else options.prompts for label in files}
    differing = {
        label: [
            (prompt, reference.token_ids, answer.token_ids)
            for prompt, reference, answer in zip(
                prompts, files["plain"].of(prompts), files[label].of(prompts), strict=True
            )
            if first_difference(reference.token_ids, answer.token_ids) is not None
        ]
        for label, prompts in asked.items()
    }

    def weighed(judge) -> dict[str, Comparison]:
        return {
            label: Comparison(
                len(asked[label]),
                [judged(prompt, label, one, other, judge) for prompt, one, other in differing[label]],
            )
            for label in files
            if label != "plain"
        }

    if not any(differing.values()):
        return weighed(None)
    with started({"plain": plain}, console, logs, make) as servers:
        return weighed(servers["plain"].client)


def _report(options: EqualOptions, files, comparisons: dict[str, Comparison], console: Console) -> None:
    """A table, what differed, and ``result.json``."""
    rows, table = [], plain_table()
    table.add_column("compared with plain decoding", no_wrap=True)
    for name in ("answers", "tokens", "identical", "ties", "different", "accept length"):
        table.add_column(name, justify="right")
    for label, comparison in comparisons.items():
        prompts = options.spread() if label == "transformers" else options.prompts
        answers = files[label].of(prompts)
        kept = kept_by_position([answer.kept for answer in answers])
        row = {
            "label": label,
            "answers": comparison.answers,
            "tokens": sum(len(answer.token_ids) for answer in answers),
            "identical": comparison.answers - len(comparison.differences),
            "ties": len(comparison.ties),
            "different": len(comparison.wrong),
            "accept_length": kept.accept_length,
        }
        table.add_row(*(str(value) for value in list(row.values())[:-1]), number(kept.accept_length, 2))
        rows.append({**row, "kept_by_position": kept.by_position})
    console.print(table)
    differences = [entry for comparison in comparisons.values() for entry in comparison.differences]
    for entry in differences:
        gap = "" if entry.gap is None else f", {entry.gap:.1e} nats apart"
        console.print(
            f"  {'tie' if entry.tie else 'DIFFERENT'}: {entry.system}, {entry.prompt}, token {entry.position}: "
            f"{entry.given} instead of {entry.expected}{gap}"
        )
    document = {
        **provenance(),
        "target": options.target,
        "draft": options.draft,
        "max_tokens": options.max_tokens,
        "tie_below_nats": TIE,
        "rows": rows,
        "differences": [{**entry._asdict(), "tie": entry.tie} for entry in differences],
    }
    text = json.dumps(document, indent=1).replace(f"{Path.cwd()}/", "")
    (options.out / RESULT).write_text(text + "\n")
    console.print(f"Written: {options.out / RESULT}")
