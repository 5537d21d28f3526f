"""The plug-in's own options: environment variables, because every process of a server inherits them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sglang_dflash.errors import DFlashError


class Variable(NamedTuple):
    """One environment variable. ``choices`` is empty where any text will do."""

    name: str
    field: str
    default: str
    choices: tuple[str, ...]
    meaning: str


VARIABLES = (
    Variable(
        "SGLANG_DFLASH_WORKER",
        "worker",
        "dflash",
        ("dflash", "builtin"),
        "who serves `--speculative-algorithm DFLASH`: this package, or SGLang's built-in worker",
    ),
    Variable(
        "SGLANG_DFLASH_PLATFORM",
        "platform",
        "",
        ("cpu", "off"),
        "the CPU platform: always, or never; unset: where no accelerator is usable",
    ),
    Variable(
        "SGLANG_DFLASH_CPU_OVERLAP",
        "cpu_overlap",
        "off",
        ("off", "on"),
        "overlap scheduling on the CPU platform, where it hides nothing and adds a round to every request",
    ),
    Variable(
        "SGLANG_DFLASH_CPU_PACK",
        "cpu_pack",
        "on",
        ("on", "off"),
        "whether large float32 weights are kept once more as a CPU multiplies by them (docs/cpu-platform.md)",
    ),
    Variable(
        "SGLANG_DFLASH_SHAPE",
        "shape",
        "fixed",
        ("fixed", "adaptive", "random"),
        "what a round verifies: always what the flags say, what pays best at the moment, or any by chance (tests; "
        "docs/shapes.md)",
    ),
    Variable(
        "SGLANG_DFLASH_GRAPH_TAIL",
        "graph_tail",
        "on",
        ("on", "off"),
        "acceptance and injection of greedy chains inside the verify pass's captured graph (GPU, one rank)",
    ),
    Variable(
        "SGLANG_DFLASH_GRAMMAR_DRAFTS",
        "grammar_drafts",
        "on",
        ("on", "off"),
        "whether drafted tokens that a request's grammar forbids give way to those that it forces (docs/grammars.md)",
    ),
    Variable(
        "SGLANG_DFLASH_LOOKUP",
        "lookup",
        "off",
        ("off", "on", "only"),
        "candidates from the request's own context: none, beside the draft's, or alone without a draft pass "
        "(docs/lookup.md)",
    ),
    Variable(
        "SGLANG_DFLASH_SHARE_ENDS",
        "share_ends",
        "on",
        ("on", "off"),
        "whether a draft's own embedding or head that equals the target's is kept once (docs/weight-updates.md)",
    ),
    Variable(
        "SGLANG_DFLASH_UPDATE_RESTORE",
        "update_restore",
        "on",
        ("on", "off"),
        "whether weights are copied to host memory during an update, and put back where it fails",
    ),
    Variable(
        "SGLANG_DFLASH_TIMINGS",
        "timings",
        "",
        (),
        "file to which every decode round's milliseconds, split by stage, are appended as JSON lines",
    ),
    Variable(
        "SGLANG_DFLASH_COUNTS",
        "counts",
        "",
        (),
        "file to which every decode round's operations (launches, allocations, copies, syncs) are appended",
    ),
    Variable(
        "SGLANG_DFLASH_PROPOSER",
        "proposer",
        "",
        (),
        "`module:Class` that wraps the draft's chain in a proposer of one's own (research, tests)",
    ),
)


@dataclass(frozen=True)
class Options:
    """The values of ``VARIABLES`` in this process."""

    worker: str
    platform: str
    cpu_overlap: str
    cpu_pack: str
    shape: str
    graph_tail: str
    grammar_drafts: str
    lookup: str
    share_ends: str
    update_restore: str
    timings: str
    counts: str
    proposer: str

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Options":
        """Read every variable; an unset or empty one has its default.

        Raises:
            DFlashError: a value is not among the choices.
        """
        return cls(**{variable.field: _value(variable, environ) for variable in VARIABLES})


def _value(variable: Variable, environ: Mapping[str, str]) -> str:
    value = environ.get(variable.name, "").strip()
    if not value:
        return variable.default
    if not variable.choices:
        return value
    if value.lower() not in variable.choices:
        raise DFlashError(variable.name, f"is {value!r}", f"use one of {', '.join(variable.choices)}")
    return value.lower()


def table() -> str:
    """``VARIABLES`` as a markdown table; docs/options.md holds it, and a test compares."""
    rows = ["| Variable | Values | Default | Meaning |", "|---|---|---|---|"]
    for variable in VARIABLES:
        values = ", ".join(f"`{choice}`" for choice in variable.choices) or "text"
        default = f"`{variable.default}`" if variable.default else "unset"
        rows.append(f"| `{variable.name}` | {values} | {default} | {variable.meaning} |")
    return "\n".join(rows)


# SGLang's own.

# Of its earlier versions: off meant speculation without overlap scheduling.
OVERLAP_FLAGS = ("SGLANG_ENABLE_SPEC_V2", "SGLANG_ENABLE_DFLASH_SPEC_V2")
_ON, _OFF = ("1", "true", "yes", "y"), ("0", "false", "no", "n")


def flag_value(name: str, text: str) -> bool:
    """An on/off environment flag; DFlashError where the text is neither."""
    lowered = text.strip().lower()
    if lowered not in _ON + _OFF:
        raise DFlashError(name, f"is {text!r}", "use 1 or 0")
    return lowered in _ON
