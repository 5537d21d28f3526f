"""A lean Qwen3 causal LM for training on CPU cores; parameter names are Hugging Face's.

Fewer and larger kernels than the stock modelling code: q, k and v in one matmul,
gate and up in one, q and k normalised and rotated together.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """Sizes of a Qwen3 network; field names as in its config.json."""

    vocab_size: int
    hidden_size: int = 128
    num_hidden_layers: int = 8
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 32
    intermediate_size: int = 384
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6

    def as_dict(self) -> dict:
        """Plain dictionary, for checkpoints and config.json."""
        return asdict(self)


class Norm(nn.Module):
    """RMS norm with a gain, weight [dim]."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        # Of one dtype: torch has no fused norm for two.
        return F.rms_norm(x, x.shape[-1:], self.weight.to(x.dtype), self.eps)


def rope_table(length: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin, each [length, head_dim], in the half-rotation layout of Qwen3."""
    inverse = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * inverse
    angle = torch.cat((angle, angle), -1)
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x [..., head_dim]; cos and sin broadcast against it."""
    low, high = x.chunk(2, -1)
    return x * cos + torch.cat((-high, low), -1) * sin


class Attention(nn.Module):
    """Grouped-query attention with normalised queries and keys."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        h, d = shape.hidden_size, shape.head_dim
        self.heads, self.kv_heads, self.head_dim = shape.num_attention_heads, shape.num_key_value_heads, d
        self.q_proj = nn.Linear(h, self.heads * d, bias=False)
        self.k_proj = nn.Linear(h, self.kv_heads * d, bias=False)
        self.v_proj = nn.Linear(h, self.kv_heads * d, bias=False)
        self.o_proj = nn.Linear(self.heads * d, h, bias=False)
        self.q_norm = Norm(d, shape.rms_norm_eps)
        self.k_norm = Norm(d, shape.rms_norm_eps)

    def qkv(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [b, s, hidden], cos/sin [b, s, 1, d] -> q [b, H, s, d], k and v [b, K, s, d]."""
        weight = torch.cat((self.q_proj.weight, self.k_proj.weight, self.v_proj.weight))
        fused = F.linear(x, weight).unflatten(-1, (-1, self.head_dim))
        turned = self.heads + self.kv_heads
        gain = torch.cat((self.q_norm.weight.expand(self.heads, -1), self.k_norm.weight.expand(self.kv_heads, -1)))
        qk = F.rms_norm(fused[:, :, :turned], (self.head_dim,), None, self.q_norm.eps) * gain
        qk = rotate(qk, cos, sin).transpose(1, 2)
        return qk[:, : self.heads], qk[:, self.heads :], fused[:, :, turned:].transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """bias [b, 1, s, t] additive -> [b, s, hidden]."""
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.o_proj(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Gated SiLU feed-forward."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        h, m = shape.hidden_size, shape.intermediate_size
        self.gate_proj = nn.Linear(h, m, bias=False)
        self.up_proj = nn.Linear(h, m, bias=False)
        self.down_proj = nn.Linear(m, h, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = F.linear(x, torch.cat((self.gate_proj.weight, self.up_proj.weight))).chunk(2, -1)
        return self.down_proj(F.silu(gate) * up)


class Layer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = Mlp(shape)
        self.input_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.post_attention_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)


class Trunk(nn.Module):
    """Embedding, layers and final norm; its parameters carry the prefix ``model.``."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = Norm(shape.hidden_size, shape.rms_norm_eps)


class TinyQwen3(nn.Module):
    """Qwen3 with tied embeddings; ``state_dict`` loads in ``Qwen3ForCausalLM``."""

    def __init__(self, shape: Shape, max_length: int = 4096) -> None:
        super().__init__()
        self.shape = shape
        self.model = Trunk(shape)
        cos, sin = rope_table(max_length, shape.head_dim, shape.rope_theta)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def init_weights(self, seed: int) -> None:
        """Fan-in scaled matrices, residual outputs at zero, small embeddings."""
        generator = torch.Generator().manual_seed(seed)
        for name, p in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(p)
            elif "embed" in name:
                nn.init.normal_(p, std=0.05, generator=generator)
            elif p.ndim == 2:
                nn.init.normal_(p, std=p.shape[1] ** -0.5, generator=generator)

    def forward(
        self,
        ids: Tensor,
        positions: Tensor,
        bias: Tensor | None,
        cache: list | None = None,
        taps: list[Tensor] | None = None,
    ) -> Tensor:
        """ids, positions [b, s], bias [b, 1, s, t] -> normed hidden [b, s, hidden].

        ``cache`` is a list of per-layer objects with ``update(k, v) -> (k, v)``;
        ``taps`` collects every layer's output [b, s, hidden].
        """
        cos, sin = self.cos[positions].unsqueeze(2), self.sin[positions].unsqueeze(2)
        x = F.embedding(ids, self.model.embed_tokens.weight)
        for i, layer in enumerate(self.model.layers):
            q, k, v = layer.self_attn.qkv(layer.input_layernorm(x), cos, sin)
            if cache is not None:
                k, v = cache[i].update(k, v)
            x = x + layer.self_attn.attend(q, k, v, bias)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
            if taps is not None:
                taps.append(x)
        return self.model.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [..., hidden] -> [..., vocab]."""
        return F.linear(hidden, self.model.embed_tokens.weight)
