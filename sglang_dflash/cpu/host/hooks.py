"""Functions of SGLang that cannot run on a host CPU, and how ours take their place."""

from typing import Any

import torch
from sglang.srt.plugins.hook_registry import HookRegistry, HookType

from sglang_dflash.host.contract import Touch

_ROWS = "sglang.srt.mem_cache.allocation"
_LOCS = "sglang.kernels.ops.speculative.cache_locs"
_START = "sglang.srt.distributed.bootstrap"
_DENSE = "sglang.srt.layers.quantization.unquant:UnquantizedLinearMethod.apply"
_SIZES = "sglang.srt.configs.update_config:adjust_config_with_unaligned_cpu_tp"
_PINNING = "SGLang leaves pinning to an out-of-tree platform"
_SEAM = "SGLang offers a platform seam, as it does for get_speculative_cache_locs_fn"
TOUCHES = (
    Touch(
        f"{_ROWS}:assign_req_to_token_pool_func",
        "replaced: Triton",
        _SEAM,
        ("req_pool_indices", "req_to_token", "start_offset", "end_offset", "out_cache_loc", "batch_size"),
    ),
    Touch(
        f"{_ROWS}:get_last_loc",
        "replaced: Triton",
        _SEAM,
        ("req_to_token", "req_pool_indices_tensor", "prefix_lens_tensor"),
    ),
    Touch(
        f"{_ROWS}:write_cache_indices",
        "replaced: loops over requests with several host reads each",
        _SEAM,
        (
            "out_cache_loc",
            "req_pool_indices_tensor",
            "prefix_lens_tensor",
            "prefix_tensors",
            "req_to_token_pool",
        ),
    ),
    Touch(
        f"{_LOCS}:fill_front_out_cache_loc_func",
        "replaced: Triton",
        _SEAM,
        ("num_front", "out_cache_loc", "front_out_cache_loc"),
    ),
    Touch(
        _DENSE,
        "replaced: torch multiplies float32 with MKL, several times slower on some processors than oneDNN",
        "torch picks the faster library",
        ("layer", "x", "bias"),
    ),
    Touch(
        f"{_START}:_bind_threads_if_cpu",
        "replaced: demands a NUMA node per rank; we pin nothing",
        _PINNING,
        ("device",),
    ),
    Touch(
        f"{_START}:_init_cpu_threads_env",
        "replaced: calls compiled kernels that some hosts lack",
        _PINNING,
        ("local_omp_cpuid", "dist_init_method"),
    ),
    Touch(
        _SIZES,
        "replaced: pads sizes for compiled kernels that this platform does not call, and weights stay unpadded",
        _SEAM,
        ("model_config", "load_config", "tp_size"),
    ),
    Touch(
        "torch:Tensor.pin_memory",
        "replaced: wants an accelerator; SGLang pins a plain hybrid batch's snapshot mask, and videos, without asking",
        "SGLang asks the platform's is_pin_memory_available wherever it pins",
    ),
)


def replace_triton_helpers(write_row_spans, last_slots, write_extend_rows, pack_front_slots) -> None:
    """Put the four torch twins in place of the functions of ``TOUCHES``, in that order."""
    HookRegistry.register(f"{_ROWS}.assign_req_to_token_pool_func", write_row_spans, HookType.REPLACE)
    HookRegistry.register(f"{_ROWS}.get_last_loc", last_slots, HookType.REPLACE)
    HookRegistry.register(f"{_ROWS}.write_cache_indices", write_extend_rows, HookType.REPLACE)
    HookRegistry.register(f"{_LOCS}.fill_front_out_cache_loc_func", pack_front_slots, HookType.REPLACE)


def replace_dense_projections(project) -> None:
    """``project(layer, x, bias)`` computes unquantised projections of every model."""

    def apply(self, layer, x, bias=None):
        return project(layer, x, bias)

    HookRegistry.register(_DENSE.replace(":", "."), apply, HookType.REPLACE)


def keep_threads_unpinned() -> None:
    """SGLang neither pins threads nor asks for one NUMA node per rank."""
    HookRegistry.register(f"{_START}._bind_threads_if_cpu", _no_binding, HookType.REPLACE)
    HookRegistry.register(f"{_START}._init_cpu_threads_env", _no_threads_env, HookType.REPLACE)


def _no_binding(*, device) -> None:
    return None


def _no_threads_env(*, local_omp_cpuid, dist_init_method=None) -> None:
    return None


def keep_sizes() -> None:
    """A model keeps the sizes of its config."""
    HookRegistry.register(_SIZES.replace(":", "."), _same_config, HookType.REPLACE)


def _same_config(model_config, load_config, tp_size):
    return model_config


def keep_memory_unpinned() -> None:
    """Host memory is the device's here: a pinned copy is the tensor itself."""
    tensor: Any = torch.Tensor
    tensor.pin_memory = _itself


def _itself(tensor: torch.Tensor, device=None) -> torch.Tensor:
    return tensor
