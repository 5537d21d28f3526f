"""Functions of SGLang that launch Triton kernels on the serving path, and how ours take their place."""

from sglang.srt.plugins.hook_registry import HookRegistry, HookType

from sglang_dflash.host.contract import Touch

_ROWS = "sglang.srt.mem_cache.allocation"
_LOCS = "sglang.kernels.ops.speculative.cache_locs"
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
        ("out_cache_loc", "req_pool_indices_tensor", "prefix_lens_tensor", "prefix_tensors", "req_to_token_pool"),
    ),
    Touch(
        f"{_LOCS}:fill_front_out_cache_loc_func",
        "replaced: Triton",
        _SEAM,
        ("num_front", "out_cache_loc", "front_out_cache_loc"),
    ),
)


def replace(write_row_spans, last_slots, write_extend_rows, pack_front_slots) -> None:
    """Put the four torch twins in place of the functions of ``TOUCHES``, in that order."""
    HookRegistry.register(f"{_ROWS}.assign_req_to_token_pool_func", write_row_spans, HookType.REPLACE)
    HookRegistry.register(f"{_ROWS}.get_last_loc", last_slots, HookType.REPLACE)
    HookRegistry.register(f"{_ROWS}.write_cache_indices", write_extend_rows, HookType.REPLACE)
    HookRegistry.register(f"{_LOCS}.fill_front_out_cache_loc_func", pack_front_slots, HookType.REPLACE)
