"""The outcome of a check, as tables, as JSON and as an exit code."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from sglang_dflash.checkpoints.checks.findings import ERROR, SEVERITIES, WARNING, Finding
from sglang_dflash.tools.doctor.advice import Advice
from sglang_dflash.tools.doctor.live.verdict import Verdict
from sglang_dflash.tools.doctor.machine import Machine
from sglang_dflash.tools.doctor.memory import Budget, gib, kv_room
from sglang_dflash.tools.doctor.reading import Reading

FITS, PROBLEMS = 0, 1  # 2: something could not be read
_COLOURS = {ERROR: "red", WARNING: "yellow", "note": "cyan"}


@dataclass(frozen=True)
class Report:
    """Everything that a check found out."""

    reading: Reading
    machine: Machine
    findings: tuple[Finding, ...]
    budget: Budget
    advice: Advice
    verdict: Verdict | None = None  # of a run

    @property
    def kv_room(self) -> int | None:
        """Tokens of KV cache at the advised memory fraction; None where none is advised."""
        share = dict(self.advice.flags).get("--mem-fraction-static")
        return kv_room(self.budget, self.machine, None if share is None else float(share))

    @property
    def exit_code(self) -> int:
        """0: it fits, notes at most; 1: errors or warnings, or a run that is not wired right."""
        bad = any(finding.severity in (ERROR, WARNING) for finding in self.findings)
        return PROBLEMS if bad or (self.verdict is not None and not self.verdict.wired_right) else FITS


def as_json(report: Report) -> dict:
    """The report as plain values; sizes in bytes."""
    case, result = report.reading.case, report.budget
    return {
        "target": str(report.reading.target_folder),
        "draft": str(report.reading.draft_folder),
        "architecture": case.architecture,
        "catalogue": case.target_entry and case.target_entry.name,
        "machine": {"name": report.machine.name, "gpus": report.machine.count, "memory": report.machine.memory},
        "fits": report.exit_code == FITS,
        "findings": [finding.as_dict() for finding in report.findings],
        "memory": {
            "context_length": result.context_length,
            "concurrency": result.concurrency,
            "verify_width": result.width,
            "parts": {part.name: part.size for part in result.parts},
            "total": result.total,
            "reserve": result.reserve,
            "kv_room_tokens": report.kv_room,
            "estimated": list(report.reading.estimated),
            "state_per_request": dict(result.state_per_width),
        },
        "serve_with": dict(report.advice.flags),
        "run": report.verdict and report.verdict.as_dict(),
        "exit_code": report.exit_code,
    }


def show(report: Report, console: Console) -> None:
    """Print the report."""
    reading = report.reading
    console.print(f"target   {reading.target_folder}  {reading.case.architecture}", soft_wrap=True)
    console.print(f"draft    {reading.draft_folder}  {_draft_words(report)}", soft_wrap=True)
    console.print(f"machine  {_machine_words(report.machine)}\n", soft_wrap=True)
    _show_findings(report, console)
    console.print(_memory_table(report))
    if report.budget.state_per_width:
        widths = ", ".join(f"{width}: {gib(size)}" for width, size in report.budget.state_per_width)
        console.print(f"state buffers per request, by verify width: {widths}", soft_wrap=True)
    room = report.kv_room
    if room is not None:
        console.print(f"room for {room} tokens of KV cache at the memory fraction below")
    console.print(f"\nserve with  {report.advice.words()}\n            ({report.advice.source})", soft_wrap=True)
    if report.verdict is not None:
        report.verdict.show(console)
    console.print(f"\n{_summary(report)}", soft_wrap=True)


def _draft_words(report: Report) -> str:
    draft = report.reading.case.draft
    ids = "spaced evenly" if draft.target_layer_ids is None else list(draft.target_layer_ids)
    return f"blocks of {draft.block_size}, {draft.num_layers} layers, target layers {ids}, mask {draft.mask_token_id}"


def _machine_words(machine: Machine) -> str:
    many = f"{machine.count}x " if machine.count > 1 else ""
    return f"{many}{machine.name}, {gib(machine.memory)}{' each' if many else ''}"


def _show_findings(report: Report, console: Console) -> None:
    if not report.findings:
        console.print("nothing to remark\n")
        return
    table = Table(header_style="bold", pad_edge=False, show_lines=False)
    for title in ("", "finding", "field", "what", "remedy"):
        table.add_column(title, overflow="fold")
    for finding in sorted(report.findings, key=lambda each: SEVERITIES.index(each.severity)):
        colour = _COLOURS[finding.severity]
        table.add_row(
            f"[{colour}]{finding.severity}[/{colour}]",
            finding.name,
            *map(_plain, (finding.field, finding.what)),
            _plain(finding.remedy),
        )
    console.print(table)


def _plain(text: str) -> str:
    """Brackets of lists are no markup."""
    return text.replace("[", "\\[")


def _memory_table(report: Report) -> Table:
    result, tp = report.budget, report.reading.case.plan.tp_size
    title = f"{result.concurrency} requests of {result.context_length} tokens, verify width {result.width}"
    table = Table("memory of one rank" if tp > 1 else "memory", title, header_style="bold", pad_edge=False)
    table.add_column("how", overflow="fold")
    for part in result.parts:
        guess = part.name.split()[0] in report.reading.estimated and "weights" in part.name
        table.add_row(part.name, gib(part.size), f"{part.how}{', estimated from the config' if guess else ''}")
    table.add_row("together", gib(result.total), "")
    if result.reserve:
        table.add_row("left free", gib(result.reserve), "activations and captured graphs, as SGLang estimates them")
    return table


def _summary(report: Report) -> str:
    counts = {severity: sum(f.severity == severity for f in report.findings) for severity in SEVERITIES}
    told = ", ".join(f"{count} {severity}{'s' * (count != 1)}" for severity, count in counts.items() if count)
    if report.exit_code == FITS:
        return f"fits ({told or 'nothing to remark'})"
    return f"does not fit as it is ({told or report.verdict.summary})"
