"""How to serve the pair on a machine: backends, page, memory, window, as flags of SGLang."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sglang_dflash.checkpoints.catalogue import Backends, load_catalogue
from sglang_dflash.checkpoints.checks.case import Case
from sglang_dflash.checkpoints.checks.findings import Finding
from sglang_dflash.checkpoints.checks.serving import draft_window
from sglang_dflash.tools.doctor.layers import STATE, is_latent, layer_kinds
from sglang_dflash.tools.doctor.machine import Machine
from sglang_dflash.tools.doctor.memory import Budget, fraction

_WINDOW_FINDINGS = ("draft-context-short", "draft-context-untrained")


@dataclass(frozen=True)
class Advice:
    """Flags to serve with, and one line that says where the backends come from."""

    flags: tuple[tuple[str, str], ...]
    source: str

    def words(self) -> str:
        """As on a command line."""
        return " ".join(f"{flag} {value}" for flag, value in self.flags)


def advise(case: Case, result: Budget, machine: Machine, findings: list[Finding]) -> Advice:
    """What to serve a pair with on a machine."""
    flags: list[tuple[str, object]] = [("--speculative-num-draft-tokens", case.block_size)]
    entry = case.target_entry
    source = "the CPU platform's own backend"
    if not machine.on_cpu:
        row, source = backends(case, machine)
        flags += [("--attention-backend", row.target), ("--speculative-draft-attention-backend", row.draft)]
        flags.append(("--page-size", row.page))
        flags.append(("--mem-fraction-static", fraction(result, machine, entry and entry.memory_fraction)))
        flags.append(("--dtype", "bfloat16"))
        if STATE in layer_kinds(case.text):
            flags.append(("--mamba-radix-cache-strategy", "extra_buffer"))
    if case.plan.tp_size > 1:
        flags.append(("--tp-size", case.plan.tp_size))
    flags.append(("--context-length", case.plan.context_length))
    if any(finding.name in _WINDOW_FINDINGS for finding in findings):
        flags.append(("--speculative-draft-window-size", draft_window(case)))
    return Advice(tuple((flag, str(value)) for flag, value in flags if value not in (None, "")), source)


def backends(case: Case, machine: Machine) -> tuple[Backends, str]:
    """The row of the catalogue for a pair: its own, else that of targets of its kind."""
    tables = load_catalogue().attention
    own = case.target_entry and case.target_entry.attention
    table = own or tables[kind_of(case.text)]
    origin = f"catalogue, {case.target_entry.name}" if own else f"catalogue, targets of the kind {table.name}"
    row = table.on(machine.generation)
    layers = case.draft.layers
    slides = all(layer.window is not None for layer in layers) or all(layer.causal for layer in layers)
    if row.draft == "trtllm_mha" and not slides:
        row = Backends(row.target, "fa4", row.page)
    return row, f"{origin} (confidence {table.confidence})"


def kind_of(text: Mapping[str, Any]) -> str:
    """Which of the catalogue's kinds of attention a target is of."""
    if text.get("index_topk") or text.get("index_head_dim"):
        return "dsa"
    if is_latent(text):
        return "mla"
    if text.get("mamba_num_heads"):
        return "mamba2"
    if STATE in layer_kinds(text):
        return "hybrid"
    family = str(text.get("model_type"))
    if family.startswith("gemma"):
        return "gemma"
    if family == "gpt_oss":
        return "sinks"
    return "asymmetric" if text.get("v_head_dim", text.get("head_dim")) != text.get("head_dim") else "dense"
