"""Where keys and values lie: one body of attention over every kind of KV pool that a host serves.

A row access has ``write(layer, slots, k, v)``, ``write_rows(layer, slots, rows)`` and ``read(layer, span)``; it is
chosen once, when the attention backend is built.
"""

import torch

from sglang_dflash.cpu.host.attention import MLATokenToKVPool, SWAKVPool
from sglang_dflash.cpu.host.pool import CpuKVPool
from sglang_dflash.cpu.spans import Slots, Span


def rows_of(pool):
    """The row access that fits ``pool``."""
    if isinstance(pool, CpuKVPool):
        return JointRows(pool)
    if isinstance(pool, MLATokenToKVPool):
        return LatentRows(pool)
    if isinstance(pool, SWAKVPool):
        return HybridRows(pool)
    return SplitRows(pool)


def _gather(rows: torch.Tensor, slots: Slots) -> torch.Tensor:
    if slots.run is not None:
        return rows[slots.run]
    assert slots.flat is not None  # one of the two is
    return rows.index_select(0, slots.flat)


class JointRows:
    """Keys and values of our own pool: one gather, one write. ``indices`` maps layer ids where they have gaps."""

    def __init__(self, pool: CpuKVPool, indices: dict[int, int] | None = None):
        self._pool = pool
        first = pool.start_layer
        self._at = indices or {first + i: i for i in range(pool.layer_num)}
        self._k_width = pool.k_width

    def write(self, layer, slots, k, v) -> None:
        """Store k [n, kv_heads, head_dim] and v [n, kv_heads, v_head_dim] in ``slots`` [n]."""
        self._pool.write(self._at[layer.layer_id], slots, k, v)

    def write_rows(self, layer, slots, rows) -> None:
        """Store rows [n, kv_heads * (head_dim + v_head_dim)], keys before values."""
        target = self._pool.rows[self._at[layer.layer_id]]
        target.index_copy_(0, slots, rows if rows.dtype == target.dtype else rows.to(target.dtype))

    def read(self, layer, span: Span) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys [n, kv_heads * head_dim] and values [n, kv_heads * v_head_dim] of the span's slots."""
        return self.read_slots(layer, span.slots)

    def read_slots(self, layer, slots: Slots) -> tuple[torch.Tensor, torch.Tensor]:
        """``read`` of slots that are this pool's own."""
        rows = _gather(self._pool.rows[self._at[layer.layer_id]], slots)
        return rows[:, : self._k_width], rows[:, self._k_width :]


class LatentRows:
    """Latent attention: one row per token is every head's key, and its first ``v_head_dim`` columns the value."""

    def __init__(self, pool: MLATokenToKVPool):
        self._pool = pool

    def write(self, layer, slots, k, v) -> None:
        """Store k [n, 1, head_dim], whose head is ``v``."""
        target = self._pool.get_key_buffer(layer.layer_id)
        target.index_copy_(0, slots.long(), k.to(target.dtype))

    def read(self, layer, span: Span) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys [n, head_dim] and values [n, v_head_dim] of the span's slots."""
        rows = _gather(self._pool.get_key_buffer(layer.layer_id), span.slots).flatten(1)
        return rows, rows[:, : layer.v_head_dim]


class HybridRows:
    """Sliding layers in a smaller pool of their own, whose slots SGLang's table maps from the token's."""

    def __init__(self, pool: SWAKVPool):
        self._pool = pool
        indices: dict[bool, dict[int, int]] = {True: {}, False: {}}
        for layer_id, (index, sliding) in pool.layers_mapping.items():
            indices[sliding][layer_id] = index
        self._rows: dict[int, tuple[JointRows, bool]] = {}
        for sliding, sub_pool in ((False, pool.full_kv_pool), (True, pool.swa_kv_pool)):
            rows = JointRows(sub_pool, indices[sliding])
            self._rows |= {layer_id: (rows, sliding) for layer_id in indices[sliding]}
        self._written: tuple[torch.Tensor, torch.Tensor] | None = None

    def write(self, layer, slots, k, v) -> None:
        """As ``JointRows.write``; ``slots`` [n] are the tokens'."""
        rows, sliding = self._rows[layer.layer_id]
        rows.write(layer, self._window_slots(slots) if sliding else slots, k, v)

    def read(self, layer, span: Span) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``JointRows.read``. Tokens that the window has left may read any row: masks hide them."""
        rows, sliding = self._rows[layer.layer_id]
        return rows.read_slots(layer, span.mapped(self._pool.translate_loc_from_full_to_swa) if sliding else span.slots)

    def _window_slots(self, slots: torch.Tensor) -> torch.Tensor:
        """Slots of the sliding pool, translated once for all layers of a pass."""
        if self._written is None or self._written[0] is not slots:
            self._written = (slots, self._pool.translate_loc_from_full_to_swa(slots))
        return self._written[1]


class SplitRows:
    """Keys and values of any other pool, through its public methods."""

    def __init__(self, pool):
        self._pool = pool

    def write(self, layer, slots, k, v) -> None:
        self._pool.set_kv_buffer(layer, slots, k, v)

    def write_rows(self, layer, slots, rows) -> None:
        keys, values = rows.split((layer.tp_k_head_num * layer.qk_head_dim, layer.tp_v_head_num * layer.v_head_dim), 1)
        keys = keys.unflatten(1, (layer.tp_k_head_num, layer.qk_head_dim))
        values = values.unflatten(1, (layer.tp_v_head_num, layer.v_head_dim))
        self._pool.set_kv_buffer(layer, slots, keys, values)

    def read(self, layer, span: Span) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self._pool.get_key_buffer(layer.layer_id), self._pool.get_value_buffer(layer.layer_id)
        return _gather(keys, span.slots).flatten(1), _gather(values, span.slots).flatten(1)
