"""Serves a pair, asks a few questions, and compares what was accepted with the reference."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
from rich.console import Console

from sglang_dflash.checkpoints.checks.tensors import SINGLE_FILE
from sglang_dflash.checkpoints.checks.tokenizer_files import thinking_default
from sglang_dflash.checkpoints.config import is_speculators, read_json
from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.doctor.live.measured import Measured, measured
from sglang_dflash.tools.doctor.live.prompts import prompts_for
from sglang_dflash.tools.doctor.live.verdict import Verdict
from sglang_dflash.tools.doctor.reading import Reading
from sglang_dflash.tools.doctor.weights import parameters
from sglang_dflash.tools.serve import Generation, ServerProcess, ServerSpec
from sglang_dflash.tools.serve.console import started
from sglang_dflash.tools.serve.log import log_folder

QUESTIONS, MAX_TOKENS = 12, 128
# Of these, how many are replayed for every other wiring.
TRIED = 6
# Share of the free memory that the reference may take.
_SHARE = 0.6


def run(
    reading: Reading, flags: tuple[str, ...], console: Console, make: Callable[..., ServerProcess] = ServerProcess
) -> Verdict:
    """Measure a pair.

    Args:
        flags: more arguments of the server.
        make: constructor of a server from spec and log folder (tests).

    Raises:
        DFlashError: the server did not start, or refused a prompt.
    """
    from sglang_dflash.reference import load_target

    mode, other = _modes(reading)
    folder = str(reading.target_folder)
    prompts = prompts_for(folder, reading.target_folder, QUESTIONS, mode)
    others = prompts_for(folder, reading.target_folder, TRIED, other) if other else []
    answers = _serve(reading, flags, [*prompts, *others], console, make)
    answers, in_other_mode = answers[: len(prompts)], answers[len(prompts) :]
    block_size = reading.case.block_size
    served = _served(answers, block_size)
    entry = reading.case.draft_entry
    facts = {
        "published": entry and entry.accept_length,
        "other_mode": (other, _served(in_other_mode, block_size)) if other else None,
    }
    reason = _no_reference(reading)
    if reason:
        return Verdict(served, no_reference=reason, **facts)
    console.print("replaying the answers in the reference")
    try:
        target = load_target(reading.target_folder)
    except Exception as error:  # checkpoints made for SGLang's class alone
        first = (str(error).strip().splitlines() or [""])[0]
        return Verdict(served, no_reference=f"transformers does not load the target: {first}", **facts)
    return replace(compared(reading, target, prompts, answers, served), **facts)


def _modes(reading: Reading) -> tuple[str | None, str | None]:
    """(thinking mode to ask in, the other one), where the chat template has a switch; else neither.

    The mode is the one asked for, else the one the draft was trained in, else the template's own.
    """
    texts, entry = reading.case.target_texts, reading.case.draft_entry
    default = thinking_default(texts.chat_template) if texts and texts.chat_template else None
    if default is None:
        return None, None
    trained = entry.thinking if entry and entry.thinking != "unknown" else default
    mode = reading.case.plan.thinking or trained
    return mode, "off" if mode == "on" else "on"


def _serve(reading: Reading, flags, prompts, console, make) -> list[Generation]:
    spec = ServerSpec(str(reading.target_folder), str(reading.draft_folder), "dflash", flags)
    with log_folder() as folder, started({"DFLASH": spec}, console, folder, make) as servers:
        client = servers["DFLASH"].client
        sampling = {"temperature": 0.0, "max_new_tokens": MAX_TOKENS}
        return [client.generate(prompt, sampling) for prompt in prompts]


def _served(answers: list[Generation], block_size: int) -> Measured:
    kept = [0] * block_size
    for answer in answers:
        for number, count in enumerate(answer.correct_drafts_histogram):
            kept[number] += count
    tokens = sum(len(answer.token_ids) - 1 for answer in answers)
    return Measured(tokens, sum(answer.rounds for answer in answers), tuple(kept))


def _no_reference(reading: Reading) -> str:
    """Why the reference cannot run here, "" where it can."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    draft = reading.case.draft
    if draft.unsupported_variant is not None or draft.quantisation is not None:
        return f"it has no {draft.unsupported_variant or draft.quantisation}"
    if not (reading.draft_folder / SINGLE_FILE).is_file():
        return "the draft is stored in several files"
    if reading.case.target.get("model_type") not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return "transformers has no class for the target"
    needed = 4 * sum(parameters(reading.case.text)) + 2 * reading.draft_bytes
    usable = _SHARE * psutil.virtual_memory().available
    if needed > usable:
        return f"it takes {needed / 2**30:.0f} GiB of main memory in float32"
    return ""


def compared(reading: Reading, target, prompts, answers: list[Generation], served: Measured) -> Verdict:
    """The verdict on served answers, by the reference's replay of them and of other wirings."""
    from sglang_dflash.tools.doctor.live.replay import record, replay
    from sglang_dflash.tools.doctor.live.wirings import wirings

    draft = _reference_draft(reading.draft_folder)
    texts = [(prompt, answer.token_ids) for prompt, answer in zip(prompts, answers, strict=True)]
    recordings = [record(target, prompt, answer) for prompt, answer in texts if len(answer) > 1]
    block_size = reading.case.block_size

    def figures(count: int) -> Measured:
        some = recordings[:count]
        kept = [replay(target, draft, each, block_size) for each in some]
        return measured([len(each.tokens) - each.prompt_length for each in some], kept, block_size)

    reference, few = figures(len(recordings)), figures(TRIED)
    best = None
    for wiring in wirings(reading.case, draft):
        before = getattr(draft, wiring.field)
        wiring.apply(draft)
        found = figures(TRIED)
        wiring.undo(draft, before)
        if found.accept_length > max(few.accept_length, best[1].accept_length if best else 0.0):
            best = wiring.words, found
    agreement = sum(each.agreement for each in recordings) / len(recordings)
    return Verdict(served, reference, "", best, agreement)


def _reference_draft(folder: Path):
    from sglang_dflash.reference import ReferenceKind

    raw = read_json(folder / "config.json", "DRAFT")
    if not is_speculators(raw) and not (raw.get("dflash_config") or {}).get(
        "target_layer_ids", raw.get("target_layer_ids")
    ):
        raise DFlashError("draft target_layer_ids", "are not given", "name them, so that a wrong one can be told")
    return ReferenceKind(folder)
