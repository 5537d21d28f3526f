"""Norm and rotary embedding of a draft layer's queries and keys, chosen by the device that its weights lie on."""

import torch

from sglang_dflash.engine.draft.norms import added
from sglang_dflash.kernels import qk_norm_rope


class Operators:
    """SGLang's operators, one after another: what its platforms have made fast for a host."""

    def __init__(self, attention):
        self._attention = attention

    def __call__(self, qkv: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """qkv [tokens, q_size + 2 * kv_size] -> queries [tokens, q_size], keys [tokens, kv_size]."""
        attention = self._attention
        q, k, _ = qkv.split([attention.q_size, attention.kv_size, attention.kv_size], dim=-1)
        q = attention.q_norm(q.reshape(-1, attention.head_dim)).view(-1, attention.q_size)
        k = attention.k_norm(k.reshape(-1, attention.head_dim)).view(-1, attention.kv_size)
        return attention.rotary_emb(positions, q, k)


class OneLaunch:
    """A kernel of ours, as ``Operators``; also for drafts and dtypes that SGLang's own kernel leaves out."""

    def __init__(self, attention, device_type: str):
        self._rotary = attention.rotary_emb
        self._run = qk_norm_rope.choose(device_type)
        # The parameters themselves: an update of the draft's weights fills them in place.
        self._norms = qk_norm_rope.HeadNorms(
            attention.num_heads,
            attention.num_kv_heads,
            attention.head_dim,
            attention.q_norm.weight,
            attention.k_norm.weight,
            added(attention.q_norm),
            attention.q_norm.variance_epsilon,
        )

    def __call__(self, qkv: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rotary = self._rotary  # SGLang replaces the table where it grows it
        return self._run(qkv, positions, self._norms, rotary.cos_sin_cache, not rotary.is_neox_style)


def build_head_norms(attention) -> Operators | OneLaunch:
    """For the loaded ``DraftAttention``."""
    device_type = attention.q_norm.weight.device.type
    return OneLaunch(attention, device_type) if device_type == "cuda" else Operators(attention)
