"""Recurrent state of a hybrid target: SGLang keeps one per drafted node in verify; the accepted one is committed."""

import torch
from sglang.srt.configs.hybrid_arch import mambaish_config
from sglang.srt.mem_cache import memory_pool
from sglang.srt.speculative.spec_utils import commit_mamba_states_after_verify

from sglang_dflash.host.contract import Touch
from sglang_dflash.types import Acceptance

_STATE = "a public interface for out-of-tree speculative workers"
TOUCHES = (
    Touch("sglang.srt.configs.hybrid_arch:mambaish_config", "tells recurrent-state targets apart", _STATE),
    Touch(
        "sglang.srt.speculative.spec_utils:commit_mamba_states_after_verify",
        "commits the state of a node, and the snapshot at the radix cache's interval",
        _STATE,
        ("target_worker", "batch", "accept_lens", "accept_index", "draft_token_num"),
    ),
    Touch(
        "sglang.srt.mem_cache.memory_pool:conv_window_dedup_enabled",
        "replaced: nodes of a tree do not share their convolution windows as neighbours of a chain do",
        "SGLang offers a platform seam",
        ("is_npu", "is_cpu", "speculative_eagle_topk", "is_kda"),
    ),
)


def keeps_recurrent_state(model_config) -> bool:
    """True for targets some of whose layers keep a state per request instead of keys and values."""
    return mambaish_config(model_config) is not None


def commit_states(target_worker, batch, accepted: Acceptance, width: int) -> None:
    """Make the state after the last accepted node the request's own; ``batch.seq_lens`` are still the prefix lengths.

    Where the accepted path crosses a multiple of the radix cache's interval, the state after the node there
    goes to the request's snapshot.
    """
    bs = accepted.path.shape[0]
    first = torch.arange(0, bs * width, width, device=accepted.path.device).unsqueeze(1)
    commit_mamba_states_after_verify(
        target_worker,
        batch,
        accept_lens=accepted.commit_lens,
        accept_index=accepted.path + first,
        draft_token_num=width,
    )


def keep_window_per_node() -> None:
    """A convolution window for each drafted node in the state pool, none shared with the next one."""
    memory_pool.conv_window_dedup_enabled = _window_per_node


def _window_per_node(is_npu, is_cpu, speculative_eagle_topk, is_kda) -> bool:
    return False
