"""The DFlash draft network (arXiv 2602.06036) for training and replay; names as in published checkpoints."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sglang_dflash.tools.train.model import Attention, Layer, Norm, Shape, rope_table, rotate


class DraftNetwork(nn.Module):
    """Fuses target features and drafts whole blocks; embedding and head stay with the target."""

    def __init__(self, shape: Shape, taps: int, max_length: int = 4096) -> None:
        super().__init__()
        self.shape = shape
        self.fc = nn.Linear(taps * shape.hidden_size, shape.hidden_size, bias=False)
        self.hidden_norm = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = Norm(shape.hidden_size, shape.rms_norm_eps)
        cos, sin = rope_table(max_length, shape.head_dim, shape.rope_theta)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def init_weights(self, seed: int, final_norm: Tensor) -> None:
        """Fan-in scaled matrices, the target's final norm.

        Residual outputs start at full scale: a block of mask embeddings must be left behind quickly.
        """
        generator = torch.Generator().manual_seed(seed)
        for p in self.parameters():
            if p.ndim == 2:
                p.data.copy_(torch.randn(p.shape, generator=generator) * p.shape[1] ** -0.5)
        # The head expects hidden states at the target's scale from the first step on.
        self.norm.weight.data.copy_(final_norm)

    def forward(
        self, features: Tensor, positions: Tensor, blocks: Tensor, block_positions: Tensor, seen: Tensor
    ) -> Tensor:
        """Draft every block in one pass.

        features [b, s, taps * hidden], positions [b, s], blocks [b, a, B, hidden] (embeddings),
        block_positions [b, a, B], seen [b, a, s] bool: context a block may attend to
        -> normed hidden [b, a, B, hidden].
        """
        return self.draft(self.context(features, positions), blocks, block_positions, seen)

    def context(self, features: Tensor, positions: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Each layer's keys and values of the context; arguments as of ``forward``."""
        fused = self.hidden_norm(self.fc(features))
        where = self.cos[positions].unsqueeze(2), self.sin[positions].unsqueeze(2)
        return [context_kv(layer.self_attn, fused, *where) for layer in self.layers]

    def draft(
        self, context: list[tuple[Tensor, Tensor]], blocks: Tensor, block_positions: Tensor, seen: Tensor
    ) -> Tensor:
        """Blocks over a context that is there already; the other arguments as of ``forward``."""
        flat = block_positions.flatten(1)
        block_where = self.cos[flat].unsqueeze(2), self.sin[flat].unsqueeze(2)
        bias = torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, float("-inf"))
        anchors, size = blocks.shape[1:3]
        x = blocks.flatten(1, 2)
        for layer, (keys, values) in zip(self.layers, context, strict=True):
            q, k, v = layer.self_attn.qkv(layer.input_layernorm(x), *block_where)
            x = x + layer.self_attn.o_proj(block_attention(q, k, v, keys, values, bias, anchors, size))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.norm(x).unflatten(1, (anchors, size))


def context_kv(attention: Attention, context: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of context features [b, s, hidden], each [b, kv_heads, s, head_dim]."""
    weight = torch.cat((attention.k_proj.weight, attention.v_proj.weight))
    k, v = F.linear(context, weight).unflatten(-1, (-1, attention.head_dim)).chunk(2, 2)
    return rotate(attention.k_norm(k), cos, sin).transpose(1, 2), v.transpose(1, 2)


def block_attention(
    q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, bias: Tensor, anchors: int, size: int
) -> Tensor:
    """Each block attends to its visible context and, in both directions, to itself.

    q [b, H, a*B, d], k and v [b, K, a*B, d], keys and values [b, K, s, d], bias [b, a, s]
    -> [b, a*B, H*d]. Written out, since a dense mask over all blocks would waste most of the work.
    """
    b, kv_heads, _, d = k.shape
    group = q.shape[1] // kv_heads
    q = q.unflatten(1, (kv_heads, group)) * d**-0.5  # [b, K, g, a*B, d]
    outer = (q.flatten(2, 3) @ keys.mT).unflatten(2, (group, anchors, size)) + bias[:, None, None, :, None]
    blocks = q.unflatten(3, (anchors, size)).transpose(2, 3)  # [b, K, a, g, B, d]
    own_k, own_v = (t.unflatten(2, (anchors, size)) for t in (k, v))  # [b, K, a, B, d]
    inner = (blocks.flatten(3, 4) @ own_k.mT).unflatten(3, (group, size)).transpose(2, 3)
    weights = torch.cat((outer, inner), -1).softmax(-1)
    to_context, to_block = weights.split((keys.shape[2], size), -1)
    out = (to_context.flatten(2, 4) @ values).unflatten(2, (group, anchors, size))
    own = (to_block.transpose(2, 3).flatten(3, 4) @ own_v).unflatten(3, (group, size)).transpose(2, 3)
    return (out + own).flatten(1, 2).flatten(2, 3).transpose(1, 2).flatten(2)
