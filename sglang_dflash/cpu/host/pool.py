"""The KV pool of the CPU platform: keys and values of a slot side by side, so that one gather reads both."""

import torch
from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool

from sglang_dflash.host.contract import Touch

_CARVED = "a public row layout of the pool"
TOUCHES = (
    Touch("sglang.srt.mem_cache.memory_pool:MHATokenToKVPool", "base class of the pool", "never: public"),
    Touch(
        "sglang.srt.mem_cache.memory_pool:MHATokenToKVPool._create_buffers_normal",
        "overridden: joint rows",
        _CARVED,
    ),
    Touch(
        "sglang.srt.mem_cache.memory_pool:MHATokenToKVPool._init_kv_copy_and_warmup",
        "overridden: would launch a Triton kernel",
        "SGLang's pool asks the platform before it launches Triton",
    ),
    Touch(
        "sglang.srt.mem_cache.memory_pool:MHATokenToKVPool._store_kv_layer",
        "overridden: one row write for keys and values",
        _CARVED,
        ("layer_idx", "loc", "cache_k", "cache_v"),
    ),
    Touch(
        "sglang.srt.mem_cache.memory_pool:MHATokenToKVPool._move_kv_cache_impl",
        "overridden: one row copy for keys and values",
        _CARVED,
        ("tgt_loc", "src_loc"),
    ),
)


class CpuKVPool(MHATokenToKVPool):
    """``rows[layer]`` is [slots, kv_heads * (head_dim + v_head_dim)]: a slot's keys, then its values.

    Views of them: ``k_buffer[layer]`` [slots, kv_heads, head_dim], ``v_buffer[layer]`` [.., v_head_dim].
    """

    def _create_buffers_normal(self) -> None:
        k_shape, v_shape = self._kv_buffer_shapes()
        slots = k_shape[0]
        self.k_width = k_shape[1] * k_shape[2]
        width = self.k_width + v_shape[1] * v_shape[2]
        self.rows = [torch.zeros(slots, width, dtype=self.store_dtype) for _ in range(self.layer_num)]
        self.k_buffer = [rows[:, : self.k_width].view(k_shape) for rows in self.rows]
        self.v_buffer = [rows[:, self.k_width :].view(v_shape) for rows in self.rows]

    def _init_kv_copy_and_warmup(self) -> None:
        self._kv_copy_config = None

    def _store_kv_layer(self, layer_idx, loc, cache_k, cache_v) -> None:
        self.write(layer_idx, loc, cache_k, cache_v)

    def write(self, index: int, slots: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        """Store k [n, kv_heads, head_dim], v [n, kv_heads, v_head_dim] in ``slots`` [n] int of one layer."""
        joined = torch.cat((k.flatten(1), v.flatten(1)), 1)
        self.rows[index].index_copy_(0, slots.long(), joined.to(self.store_dtype))

    def _move_kv_cache_impl(self, tgt_loc, src_loc) -> None:
        target, source = tgt_loc.view(-1).long(), src_loc.view(-1).long()
        for rows in self.rows:
            rows.index_copy_(0, target, rows.index_select(0, source))
