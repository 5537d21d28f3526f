"""One check from beginning to end."""

from collections.abc import Callable
from dataclasses import replace

from rich.console import Console

from sglang_dflash.checkpoints.checks.case import Plan
from sglang_dflash.checkpoints.checks.rules import find
from sglang_dflash.tools.doctor.advice import Advice, advise
from sglang_dflash.tools.doctor.layers import read_layers
from sglang_dflash.tools.doctor.live.run import run
from sglang_dflash.tools.doctor.live.verdict import Verdict
from sglang_dflash.tools.doctor.machine import Machine
from sglang_dflash.tools.doctor.memory import budget, memory_findings
from sglang_dflash.tools.doctor.reading import Reading, read
from sglang_dflash.tools.doctor.report import Report


def check(target: str, draft: str, plan: Plan, machine: Machine) -> Report:
    """Read a pair, go through all rules, and add up its memory on a machine.

    Args:
        plan: how it is to be served; what it leaves open is taken as advised.

    Raises:
        DFlashError: something could not be read.
    """
    plan = replace(plan, on_cpu=machine.on_cpu, generation=machine.generation)
    reading = read(target, draft, plan)
    reading = replace(reading, case=_with_known(reading))
    case = reading.case
    weights = reading.target_bytes, reading.draft_bytes
    result = budget(case, read_layers(case.text), weights, machine, plan.context_length)
    findings = [*find(case), *memory_findings(result, machine, case.plan.tp_size)]
    return Report(reading, machine, tuple(findings), result, advise(case, result, machine, findings))


def check_and_run(report: Report, console: Console, measure: Callable[..., Verdict] = run) -> Report:
    """The same report with the figures of a served run."""
    verdict = measure(report.reading, served_flags(report.advice, report.machine), console)
    return replace(report, verdict=verdict)


def served_flags(advice: Advice, machine: Machine) -> tuple[str, ...]:
    """Arguments of the server that a run starts."""
    words = tuple(word for pair in advice.flags for word in pair)
    return (*words, "--cuda-graph-max-bs-decode", "4") if not machine.on_cpu else words


def _with_known(reading: Reading):
    """The case with what the catalogue serves the target with, where nothing was asked for."""
    case, entry = reading.case, reading.case.target_entry
    if entry is None:
        return case
    known = {"mamba": entry.mamba or None, "context_length": entry.context_length}
    plan = case.plan
    return replace(case, plan=replace(plan, **{key: getattr(plan, key) or value for key, value in known.items()}))
