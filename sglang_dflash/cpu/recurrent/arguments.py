"""Server arguments of hybrid models: how many recurrent states the CPU platform keeps, and in which precision."""

import psutil

from sglang_dflash.cpu import NAME
from sglang_dflash.cpu.host.arguments import declare_resolution, register_resolution_hook, resolving_view
from sglang_dflash.cpu.host.recurrent_arguments import has_operators, keep_conv_dtype, state_bytes
from sglang_dflash.errors import DFlashError

MEMORY_SHARE = 0.25  # of the free memory
# States per request: with a radix cache its own, those that SGLang keeps at hand for snapshots, and cached ones.
CACHED, ALONE = 8, 1
# With a radix cache SGLang admits a request for this many states, at the least.
LEAST = 3


def install() -> None:
    """Wrap the argument steps that size state for a GPU (called once per process)."""
    register_resolution_hook("handle_mamba_backend")(_kinds_and_dtype)
    register_resolution_hook("handle_cache_compatibility")(_sizes)


def _kinds_and_dtype(server_args, previous) -> None:
    if not has_operators(server_args):
        raise DFlashError(
            "model", "has recurrent layers that the CPU platform has no operators for", "use an accelerator"
        )
    previous(server_args)
    if resolving_view(server_args).dtype in ("float", "float32"):
        keep_conv_dtype("float32")


def _sizes(server_args, previous) -> None:
    previous(server_args)
    cfg = resolving_view(server_args)
    if cfg.max_mamba_cache_size is not None:
        return
    size = state_bytes(server_args, cfg.tp_size)
    if size == 0:
        return
    states = default_states(
        size,
        cfg.max_running_requests,
        cfg.speculative_num_draft_tokens or 0,
        not cfg.disable_radix_cache,
        psutil.virtual_memory().available // cfg.tp_size,
    )
    declare_resolution(server_args, NAME, max_mamba_cache_size=states)


def default_states(size: int, requests: int, width: int, radix: bool, free_bytes: int) -> int:
    """States of ``size`` bytes for ``requests`` at once, fewer where they, and ``width`` nodes each, would not fit."""
    per_request, least = (CACHED, LEAST) if radix else (ALONE, ALONE)
    fitting = int(free_bytes * MEMORY_SHARE / size / (1 + width / least))
    return max(least, min(requests * per_request, fitting))
