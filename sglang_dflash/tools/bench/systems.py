"""The systems that are compared, as servers."""

from pathlib import Path

import psutil

from sglang_dflash.tools.serve.spec import WORKERS, ServerSpec

HUB = "transformers"  # the library's own generate, in this process
LABELS = {HUB: HUB, "plain": "plain", "builtin": "built-in", "dflash": "sglang-dflash"}
SERVER_BYTES = 2_500_000_000  # of three Python processes that hold torch and SGLang


def build_specs(
    systems: tuple[str, ...],
    target: str,
    draft: str,
    flags: tuple[str, ...] = (),
    block_size: int | None = None,
    timings: Path | None = None,
    exact: bool = False,
) -> dict[str, ServerSpec]:
    """One spec per system, alike but for who decodes; ``timings`` is where our worker writes its stages."""
    specs = {}
    for name in systems:
        own = flags
        if name != "plain" and block_size is not None:
            own = (*own, "--speculative-num-draft-tokens", str(block_size))
        spec = ServerSpec(target, None if name == "plain" else draft, name, own, exact=exact)
        if name == "dflash" and timings is not None:
            spec = spec.with_env(SGLANG_DFLASH_TIMINGS=str(timings))
        specs[name] = spec
    return specs


def fitting(systems: tuple[str, ...], free_bytes: int | None = None) -> tuple[str, ...]:
    """The systems to run: without the built-in worker where three servers would not fit in memory together."""
    free = psutil.virtual_memory().available if free_bytes is None else free_bytes
    keep = tuple(name for name in WORKERS if name in systems)
    if len(keep) == len(WORKERS) and len(keep) * SERVER_BYTES > free:
        return tuple(name for name in keep if name != "builtin")
    return keep
