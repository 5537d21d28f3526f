"""Torch twin of the KV injection; what the CPU serves with."""

import torch

from sglang_dflash.kernels.inject_kv.plan import InjectPlan
from sglang_dflash.kernels.norm_rope.naive import norm_heads, rotate
from sglang_dflash.kernels.prepare_block.naive import block_offsets

# SGLang's allocators never hand out slot 0: its pools keep it for the writes of padding rows.
DUMMY_SLOT = 0


def inject_kv(
    kv: torch.Tensor,
    positions: torch.Tensor,
    slots: torch.Tensor,
    commit_lens: torch.Tensor | None,
    plan: InjectPlan,
) -> None:
    """Norm and rotate the keys of ``kv`` and store keys and values in the draft's cache.

    kv [T, L * 2 * kv_heads * head_dim]: one GEMM over the fused features of T tokens, per layer
    all key heads, then all value heads (DFlash, arXiv 2602.06036, section 3: KV injection).
    positions [T] int64; slots [T] int64. With commit_lens [bs] int32 the rows are bs windows of
    T / bs tokens, of which the first commit_lens[b] are written and the others go to the dummy
    slot; with None all rows are written.
    """
    layers, (_, heads, head_dim) = len(plan.key_buffers), plan.key_buffers[0].shape
    keys, values = kv.view(-1, layers, 2, heads, head_dim).unbind(2)
    weights = None if plan.norm_weights is None else plan.norm_weights.unsqueeze(1)
    keys = rotate(norm_heads(keys, weights, plan.eps), positions, plan.cos_sin, plan.signs, plan.interleaved)
    if commit_lens is not None:
        slots = _redirect(slots, commit_lens)
    for layer in range(layers):
        _store(plan.key_buffers[layer], slots, keys[:, layer])
        _store(plan.value_buffers[layer], slots, values[:, layer])


def _redirect(slots: torch.Tensor, commit_lens: torch.Tensor) -> torch.Tensor:
    width = slots.numel() // commit_lens.numel()
    kept = block_offsets(width, slots.device) < commit_lens.unsqueeze(1)
    return torch.where(kept, slots.view(-1, width), DUMMY_SLOT).view(-1)


def _store(buffer: torch.Tensor, slots: torch.Tensor, rows: torch.Tensor) -> None:
    buffer.index_copy_(0, slots, rows.to(buffer.dtype))
