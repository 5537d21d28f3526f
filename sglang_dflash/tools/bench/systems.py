"""The systems that are compared, as servers."""

from collections.abc import Sequence
from pathlib import Path

import psutil

from sglang_dflash.tools.bench.prompts import Prompt
from sglang_dflash.tools.serve.spec import WORKERS, ServerSpec, accelerator_present

HUB = "transformers"  # the library's own generate, in this process
# Ours with other shapes, by name: (flags, environment).
VARIANTS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "one-node": (("--speculative-num-draft-tokens", "1", "--speculative-dflash-block-size", "2"), {}),
    **{f"block-{size}": (("--speculative-num-draft-tokens", str(size)), {}) for size in (2, 4, 8, 16)},
    "adaptive": ((), {"SGLANG_DFLASH_SHAPE": "adaptive"}),
}
OURS = ("dflash", *VARIANTS)
LABELS = {
    HUB: HUB,
    "plain": "plain",
    "builtin": "built-in",
    "dflash": "sglang-dflash",
    "one-node": "ours, nothing drafted",
    **{
        name: f"ours, {name.replace('-', ' of ').replace('block', 'blocks')}" for name in VARIANTS if name[-1].isdigit()
    },
    "adaptive": "ours, adaptive",
}
WINDOW = 64  # slots of a verify pass, per request
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
        own, (more, environment) = flags, VARIANTS.get(name, ((), {}))
        if name != "plain" and block_size is not None:
            own = (*own, "--speculative-num-draft-tokens", str(block_size))
        worker = "dflash" if name in OURS else name
        spec = ServerSpec(target, None if name == "plain" else draft, worker, (*own, *more), exact=exact)
        spec = spec.with_env(**environment)
        if worker == "dflash" and timings is not None:
            spec = spec.with_env(SGLANG_DFLASH_TIMINGS=str(timings))
        specs[name] = spec
    return specs


def pool_flags(prompts: Sequence[Prompt], concurrency: int, max_tokens: int) -> tuple[str, ...]:
    """A KV pool of twice what the longest requests in flight need, where it would lie in main memory.

    A server takes room for 65,536 tokens otherwise: 3 GB of a target with 30 layers, and of each server again.
    """
    if accelerator_present():
        return ()
    longest = sorted((len(prompt.token_ids) for prompt in prompts), reverse=True)[:concurrency]
    needed = sum(longest) + concurrency * (max_tokens + WINDOW)
    return "--max-total-tokens", str(max(needed, min(2 * needed, 65536)))


def fitting(systems: tuple[str, ...], free_bytes: int | None = None) -> tuple[str, ...]:
    """The systems to run: without the built-in worker where three servers would not fit in memory together."""
    free = psutil.virtual_memory().available if free_bytes is None else free_bytes
    keep = tuple(name for name in (*WORKERS, *VARIANTS) if name in systems)
    if len(keep) >= len(WORKERS) and len(keep) * SERVER_BYTES > free:
        return tuple(name for name in keep if name != "builtin")
    return keep
