"""The target's captured graphs: what is added to them, and which of them ran."""

from collections.abc import Callable

from sglang_dflash.host.contract import Touch

_GRAPHS = "a public interface for out-of-tree speculative workers"
_RUNNER = "sglang.srt.model_executor.runner.decode_cuda_graph_runner:DecodeCudaGraphRunner"
TOUCHES = (
    Touch(
        "sglang.srt.model_executor.model_runner:ModelRunner",
        "its capture_tail_hooks run behind the model's pass while a graph is captured; SGLang's DSpark worker adds one",
        _GRAPHS,
    ),
    Touch(
        "sglang.srt.mem_cache.kv_index_translator:KVIndexTranslator",
        "its is_translating: whether a batch's slots are those of the pools",
        _GRAPHS,
    ),
    Touch(
        f"{_RUNNER}.load_batch",
        "sets bs, the size of the graph that a batch replays",
        _GRAPHS,
        ("forward_batch",),
    ),
)


def add_to_graphs(target_runner, hook: Callable) -> None:
    """Capture ``hook(graph_runner, output, forward_batch, num_tokens)`` behind every pass of the target's graphs."""
    target_runner.capture_tail_hooks.append(hook)


def replayed_size(target_runner) -> int:
    """Requests, padding included, of the graph that the last replayed batch ran in."""
    return target_runner.decode_cuda_graph_runner.bs


def translates_slots(target_runner) -> bool:
    """True with unified memory, where a batch's slots are not those of the pools."""
    return target_runner.kv_index_translator.is_translating
