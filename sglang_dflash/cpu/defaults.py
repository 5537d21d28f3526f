"""Server arguments that the CPU platform fills in where the user gave none."""

import os
from collections.abc import Mapping

import psutil

from sglang_dflash.cpu import BACKEND, NAME
from sglang_dflash.cpu.host.arguments import (
    add_backend_choice,
    declare_resolution,
    get_config,
    model_config_of,
    register_resolution_hook,
    resolving_view,
)
from sglang_dflash.cpu.host.seeds import serve_seeds
from sglang_dflash.errors import DFlashError
from sglang_dflash.options import OVERLAP_FLAGS, Options, flag_value

MAX_TOKENS = 65536  # KV tokens; more only costs the time to zero them
MEMORY_SHARE = 0.25  # of the free memory, for the KV pool
MAX_REQUESTS = 48
# Models for which SGLang names the attention backends that it accepts.
BACKEND_LISTED = {"GptOssForCausalLM", "Gemma4ForCausalLM", "Gemma4ForConditionalGeneration"}
# The pool is bounded in tokens; this check of SGLang's also counts what other processes take meanwhile.
MEMORY_CEILING = 0.95


# What SGLang can do on a GPU only, and would end over after the weights were loaded: field, flag, why.
GPU_ONLY = (
    ("enable_lora", "--enable-lora", "whose adapters SGLang keeps in a GPU's pinned memory"),
    ("lora_paths", "--lora-paths", "whose adapters SGLang keeps in a GPU's pinned memory"),
    ("enable_hierarchical_cache", "--enable-hierarchical-cache", "whose host memory SGLang registers with a GPU"),
)


def install() -> None:
    """Wrap the argument steps in which SGLang would decide for a GPU (called once per process)."""
    add_backend_choice(BACKEND)
    serve_seeds(BACKEND)
    register_resolution_hook("handle_missing_default_values")(_checkpoint_dtype)
    register_resolution_hook("handle_cuda_graph_config")(_no_graphs)
    register_resolution_hook("handle_cpu_backends")(_our_backend)
    register_resolution_hook("handle_model_specific_adjustments")(_admitted_backend)
    register_resolution_hook("handle_platform_defaults")(_sizes)
    register_resolution_hook("handle_speculative_decoding")(_only_dflash)
    register_resolution_hook("handle_page_major_kv_layout")(_own_pools)  # the first step that asks for it


def _checkpoint_dtype(server_args, previous) -> None:
    """``--dtype auto`` keeps a float32 checkpoint in float32; SGLang would serve it in float16."""
    previous(server_args)
    cfg = resolving_view(server_args)
    if cfg.dtype != "auto":
        return
    config = get_config(cfg.model_path, trust_remote_code=cfg.trust_remote_code, revision=cfg.revision)
    stored = getattr(config, "dtype", None)
    if stored is None or str(stored).endswith("float32"):
        declare_resolution(server_args, NAME, dtype="float32")


def _no_graphs(server_args, previous) -> None:
    off = {"cuda_graph_backend_decode": "disabled", "cuda_graph_backend_prefill": "disabled"}
    declare_resolution(server_args, NAME, **off)
    previous(server_args)


def _our_backend(server_args, previous) -> None:
    # SGLang picks its own CPU backends before it asks the platform: claim the place first.
    cfg = resolving_view(server_args)
    for field, flag, why in GPU_ONLY:
        if getattr(cfg, field):
            raise DFlashError(flag, f"does not run on the CPU platform, {why}", "leave it out")
    if cfg.attention_backend is None:
        declare_resolution(server_args, NAME, attention_backend=BACKEND)
    if cfg.moe_runner_backend == "auto":
        # The layout of weights that our experts read; others pad or transpose them for their kernels.
        declare_resolution(server_args, NAME, moe_runner_backend="triton")
    previous(server_args)


def _admitted_backend(server_args, previous) -> None:
    # For these models SGLang accepts only backends that it knows to have sinks and windows, as ours does.
    architectures = set(model_config_of(server_args).hf_config.architectures or ())
    if resolving_view(server_args).attention_backend != BACKEND or not architectures & BACKEND_LISTED:
        return previous(server_args)
    declare_resolution(server_args, NAME, attention_backend="triton")
    previous(server_args)
    declare_resolution(server_args, NAME, attention_backend=BACKEND)


def _sizes(server_args, previous) -> None:
    previous(server_args)
    cfg = resolving_view(server_args)
    defaults: dict[str, float] = {}
    if cfg.max_total_tokens is None:
        defaults["max_total_tokens"] = default_kv_tokens(
            kv_row_bytes(model_config_of(server_args), cfg.tp_size),
            cfg.tp_size,
            psutil.virtual_memory().available,
        )
    if cfg.max_running_requests is None:
        defaults["max_running_requests"] = MAX_REQUESTS
    if cfg.mem_fraction_static is None:
        defaults["mem_fraction_static"] = MEMORY_CEILING
    if not overlap_requested():
        # Host and device are the same cores: a round scheduled ahead hides nothing, and a request pays
        # one more round before its end is seen.
        defaults["disable_overlap_schedule"] = True
    # An idle server must not hold a core; a request wakes it through its socket.
    defaults["sleep_on_idle"] = True
    declare_resolution(server_args, NAME, **defaults)


def overlap_requested(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether overlap scheduling was asked for: by our own variable, or by SGLang's older spellings."""
    older = any(environ.get(name) and flag_value(name, environ[name]) for name in OVERLAP_FLAGS)
    return older or Options.from_env(environ).cpu_overlap == "on"


def kv_row_bytes(model_config, ranks: int) -> int:
    """Bytes of one token's keys and values over all layers, in one rank."""
    width = model_config.head_dim + (model_config.v_head_dim or model_config.head_dim)
    return model_config.num_hidden_layers * model_config.get_num_kv_heads(ranks) * width * model_config.dtype.itemsize


def default_kv_tokens(row_bytes: int, ranks: int, free_bytes: int) -> int:
    """Tokens of the KV pool: a share of the free memory, bounded, so that start-up zeroes no gigabytes."""
    fitting = int(free_bytes * MEMORY_SHARE) // (row_bytes * ranks)
    return max(1024, min(MAX_TOKENS, fitting) // 1024 * 1024)


def _only_dflash(server_args, previous) -> None:
    algorithm = resolving_view(server_args).speculative_algorithm
    if algorithm is not None and algorithm.upper() != "DFLASH":
        raise DFlashError("--speculative-algorithm", f"{algorithm} does not run on the CPU platform", "use DFLASH")
    previous(server_args)


def _own_pools(server_args, previous) -> None:
    # Its slots are virtual and its rows strided by layer; attention and states here read rows of their own pools.
    if resolving_view(server_args).enable_unified_memory:
        raise DFlashError("--enable-unified-memory", "does not run on the CPU platform", "drop it")
    previous(server_args)
