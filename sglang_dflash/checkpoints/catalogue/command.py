"""An entry as the command that serves it."""

import sys
from collections.abc import Sequence

from sglang_dflash.checkpoints.catalogue.entries import GENERATIONS, Entry
from sglang_dflash.errors import DFlashError
from sglang_dflash.gpus import nvidia_gpus

# Of launch scripts, which run before any Python.
QUERY = ("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")


def command(
    entry: Entry,
    generation: str | None,
    *,
    python: str = sys.executable,
    host: str = "127.0.0.1",
    port: int = 30000,
    arguments: Sequence[str] = (),
) -> list[str]:
    """The argument vector that serves an entry on GPUs of a generation (None: none known).

    Args:
        arguments: come last, so they override.

    Raises:
        DFlashError: the entry cannot be served, with the reason.
    """
    if not entry.served:
        raise DFlashError("model", f"{entry.title} cannot be served: {entry.unserved}", "sglang-dflash models")
    words = [python, "-m", "sglang.launch_server", "--model-path", entry.checkpoint]
    words += ["--speculative-algorithm", "DFLASH", "--speculative-draft-model-path", entry.draft.checkpoint]
    for flag, value in sizes(entry) + backends(entry, generation) + fixed(entry):
        words += [flag] if value is True else [flag, str(value)]
    return [*words, *entry.flags, "--host", host, "--port", str(port), *arguments]


def sizes(entry: Entry) -> list[tuple[str, object]]:
    """Flags that a machine or a workload may want changed."""
    pairs = [
        ("--speculative-num-draft-tokens", entry.block_size),
        ("--tp-size", entry.tp),
        ("--context-length", entry.context_length),
        ("--mem-fraction-static", entry.memory_fraction),
    ]
    return [(flag, value) for flag, value in pairs if value is not None]


def backends(entry: Entry, generation: str | None) -> list[tuple[str, object]]:
    """Flags that follow from the GPU."""
    row = entry.attention.on(generation)
    pairs = [
        ("--attention-backend", row.target),
        ("--speculative-draft-attention-backend", row.draft),
        ("--page-size", row.page),
    ]
    return [(flag, value) for flag, value in pairs if value]


def fixed(entry: Entry) -> list[tuple[str, object]]:
    """Flags that follow from the model."""
    pairs = [
        ("--mamba-radix-cache-strategy", entry.mamba),
        ("--reasoning-parser", entry.reasoning_parser),
        ("--tool-call-parser", entry.tool_call_parser),
        ("--trust-remote-code", entry.trust_remote_code),
    ]
    return [(flag, value) for flag, value in pairs if value]


def generation_of(capability: str) -> str | None:
    """ "9.0" -> "sm90"; None for a capability that no row knows."""
    major = capability.strip().partition(".")[0]
    return next((name for name, number in GENERATIONS.items() if number == major), None)


def this_generation() -> str | None:
    """Generation of this machine's first GPU; None without an NVIDIA GPU."""
    gpus = nvidia_gpus()
    return generation_of(gpus[0].capability) if gpus else None
