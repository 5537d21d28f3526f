"""The target's captured graphs: what is added to them, and which of them ran."""

import logging
from collections.abc import Callable

from sglang.srt.model_executor.cuda_graph_config import Backend
from sglang.srt.platforms import current_platform
from sglang.srt.runtime_context import get_exec, get_parallel
from sglang.srt.speculative.spec_tp_sync import SpecTpSync, SpecTpSyncSite

from sglang_dflash.host.contract import Touch

logger = logging.getLogger(__name__)

# The bound of SGLang's own worker.
_GRAPH_MEMORY_GB = 1.0
_GRAPHS = "a public interface for out-of-tree speculative workers"
_RUNNER = "sglang.srt.model_executor.runner.decode_cuda_graph_runner:DecodeCudaGraphRunner"
TOUCHES = (
    Touch(
        "sglang.srt.model_executor.model_runner:ModelRunner",
        "its capture_tail_hooks run behind the model's pass while a graph is captured; SGLang's DSpark worker adds one",
        _GRAPHS,
        attributes=("capture_tail_hooks", "decode_cuda_graph_runner", "kv_index_translator"),
    ),
    Touch(
        "sglang.srt.mem_cache.kv_index_translator:KVIndexTranslator",
        "its is_translating: whether a batch's slots are those of the pools",
        _GRAPHS,
        attributes=("is_translating",),
    ),
    Touch(
        f"{_RUNNER}",
        "its bs: requests, padding included, of the graph that the last replayed batch ran in",
        _GRAPHS,
        attributes=("bs",),
    ),
    Touch("sglang.srt.model_executor.cuda_graph_config:Backend.DISABLED", "are decode graphs captured?", _GRAPHS),
    Touch(
        "sglang.srt.speculative.spec_tp_sync:SpecTpSyncSite.DFLASH_MEM",
        "names what ranks agree on before the draft's graphs are captured",
        _GRAPHS,
    ),
    Touch(
        f"{_RUNNER}.load_batch",
        "sets bs, the size of the graph that a batch replays",
        _GRAPHS,
        ("forward_batch",),
    ),
)


def captures_graphs() -> bool:
    """Whether this run captures decode graphs: asked for, and the platform can."""
    if current_platform.is_out_of_tree() and not current_platform.capabilities.graph_capture:
        return False
    return get_exec().graph.cuda_graph_config.decode.backend != Backend.DISABLED


def memory_left_for_graphs(draft_runner, tp_sync: SpecTpSync) -> bool:
    """Whether the draft's graphs may be captured: False, with a warning, where a GPU has less than 1 GB left."""
    if draft_runner.device != "cuda":
        return True
    free = tp_sync.available_memory_gb(
        SpecTpSyncSite.DFLASH_MEM, draft_runner.device, draft_runner.gpu_id, group=get_parallel().tp_group
    )
    if free < _GRAPH_MEMORY_GB:
        logger.warning("sglang-dflash: the draft runs without graphs: only %.2f GB of GPU memory are free", free)
    return free >= _GRAPH_MEMORY_GB


def add_to_graphs(target_runner, hook: Callable) -> None:
    """Capture ``hook(graph_runner, output, forward_batch, num_tokens)`` behind every pass of the target's graphs."""
    target_runner.capture_tail_hooks.append(hook)


def replayed_size(target_runner) -> int:
    """Requests, padding included, of the graph that the last replayed batch ran in."""
    return target_runner.decode_cuda_graph_runner.bs


def verify_width_of(forward_batch) -> int | None:
    """Nodes per request of a verify pass, None for other passes."""
    return forward_batch.spec_info.draft_token_num if forward_batch.forward_mode.is_target_verify() else None


def translates_slots(target_runner) -> bool:
    """True with unified memory, where a batch's slots are not those of the pools."""
    return target_runner.kv_index_translator.is_translating
