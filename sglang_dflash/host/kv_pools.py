"""The buffers of a target's KV pool, each kind of pool in its own way."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from sglang.srt.mem_cache.memory_pool import MLATokenToKVPool
from sglang.srt.mem_cache.swa_memory_pool import SWAKVPool

from sglang_dflash.host.contract import Touch

_ROWS = "one interface to where a layer's keys and values lie"
TOUCHES = (
    Touch("sglang.srt.mem_cache.memory_pool:MLATokenToKVPool", "its values are part of its keys: moved once", _ROWS),
    Touch(
        "sglang.srt.mem_cache.memory_pool:HybridLinearKVPool",
        "wraps the pool of its attention layers",
        _ROWS,
        attributes=("full_kv_pool",),
    ),
    Touch(
        "sglang.srt.mem_cache.swa_memory_pool:SWAKVPool.translate_loc_from_full_to_swa",
        "sliding layers have rows of their own",
        _ROWS,
        ("kv_indices",),
    ),
)


class KVGroup(NamedTuple):
    """Buffers that number their slots alike."""

    buffers: list[torch.Tensor]  # [slots, ...] each, none part of another
    slots: Callable[[torch.Tensor], torch.Tensor]  # the tokens' slots -> this group's


def kv_groups(pool) -> list[KVGroup]:
    """Every buffer of ``pool`` that a token has a row in."""
    if isinstance(pool, SWAKVPool):
        groups = [KVGroup(_buffers(pool.full_kv_pool), _same)] if pool.full_layer_nums else []
        return [*groups, KVGroup(_buffers(pool.swa_kv_pool), pool.translate_loc_from_full_to_swa)]
    # A recurrent target's pool wraps that of its attention layers.
    return [KVGroup(_buffers(getattr(pool, "full_kv_pool", pool)), _same)]


def _same(slots: torch.Tensor) -> torch.Tensor:
    return slots


def _buffers(pool) -> list[torch.Tensor]:
    layers = range(pool.start_layer, pool.start_layer + pool.layer_num)
    keys = [pool.get_key_buffer(i) for i in layers]
    return keys if isinstance(pool, MLATokenToKVPool) else keys + [pool.get_value_buffer(i) for i in layers]
