"""Attention of one draft layer: the block's queries over injected context and the block itself."""

import torch
import torch.nn.functional as F
from torch import nn

from sglang_dflash.checkpoints.config import DraftConfig
from sglang_dflash.engine.draft.head_norms import OneLaunch, Operators, build_head_norms
from sglang_dflash.engine.draft.norms import norm_class
from sglang_dflash.host.model_api import (
    AttentionType,
    ColumnParallelLinear,
    QKVParallelLinear,
    RadixAttention,
    RowParallelLinear,
    get_parallel,
    get_rope,
    sharded_by_head,
)

# Attention backends whose kernels read sinks in fp32; the others read them in the model's dtype.
SINKS_IN_FP32 = ("trtllm_mha",)


class DraftAttention(nn.Module):
    """Query and key norms, rope, SGLang's paged attention; with sinks and output gates where the draft has them."""

    def __init__(self, config: DraftConfig, layer_id: int, quant_config=None, prefix: str = ""):
        super().__init__()
        tp = get_parallel().tp_size
        self.head_dim = config.head_dim
        self.total_num_heads = config.num_heads
        self.num_heads = config.num_heads // tp
        self.num_kv_heads = max(1, config.num_kv_heads // tp)
        self.q_size = self.num_heads * self.head_dim
        self.kv_size = self.num_kv_heads * self.head_dim
        self.qkv_proj = QKVParallelLinear(
            hidden_size=config.hidden_size,
            head_size=config.head_dim,
            total_num_heads=config.num_heads,
            total_num_kv_heads=config.num_kv_heads,
            bias=config.attention_bias,
            quant_config=quant_config,
            prefix=f"{prefix}.qkv_proj",
        )
        self.o_proj = RowParallelLinear(
            config.num_heads * config.head_dim,
            config.hidden_size,
            bias=config.attention_bias,
            quant_config=quant_config,
            prefix=f"{prefix}.o_proj",
        )
        norm = norm_class(config)
        self.q_norm = norm(config.head_dim, eps=config.rms_norm_eps)
        self.k_norm = norm(config.head_dim, eps=config.rms_norm_eps)
        self.rotary_emb = get_rope(
            config.head_dim,
            rotary_dim=config.rope.rotary_dim,
            max_position=config.max_position_embeddings,
            base=config.rope.theta,
            rope_scaling=None if config.rope.scaling is None else dict(config.rope.scaling),
            is_neox_style=not config.rope.interleaved,
        )
        layer = config.layers[layer_id]
        self.attn = RadixAttention(
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            scaling=self.head_dim**-0.5,
            num_kv_heads=self.num_kv_heads,
            layer_id=layer_id,
            # SGLang counts a window without the query's own token.
            sliding_window_size=-1 if layer.window is None else layer.window - 1,
            attn_type=AttentionType.DECODER if layer.causal else AttentionType.ENCODER_ONLY,
            quant_config=quant_config,
        )
        self.attention_sink_bias = sharded_by_head(self.num_heads) if config.attention_sinks else None
        self.g_proj = _gate(config, quant_config, f"{prefix}.g_proj")
        # Scaled values are a scaled output: the cache keeps them unscaled, the context's and the block's alike.
        self._value_scale = config.value_scale
        self._head_norms: Operators | OneLaunch  # from bind on

    def bind(self, attention_backend: str) -> None:
        """Take what this run decides, once weights are loaded: SGLang's attention backend of the draft, the device."""
        self._head_norms = build_head_norms(self)
        if self.attention_sink_bias is not None and attention_backend in SINKS_IN_FP32:
            self.attention_sink_bias.data = self.attention_sink_bias.data.float()

    def forward(self, positions: torch.Tensor, hidden: torch.Tensor, forward_batch) -> torch.Tensor:
        qkv, _ = self.qkv_proj(hidden)
        q, k = self._head_norms(qkv, positions)
        v = qkv[:, self.q_size + self.kv_size :]
        sinks = {} if self.attention_sink_bias is None else {"sinks": self.attention_sink_bias}
        mixed = self.attn(q, k, v, forward_batch, **sinks)
        if self._value_scale != 1.0:
            mixed = mixed * self._value_scale
        if self.g_proj is not None:
            gate, _ = self.g_proj(hidden)
            mixed = self._gated(mixed, gate)
        out, _ = self.o_proj(mixed)
        return out

    def _gated(self, mixed: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """mixed [tokens, heads * head_dim] times softplus of ``gate``, a projection of the layer's input."""
        gate = F.softplus(gate.float()).to(mixed.dtype)
        # One gate per head, or per channel: the last axis then has one entry, or head_dim.
        heads = mixed.view(-1, self.num_heads, self.head_dim)
        return (heads * gate.view(-1, self.num_heads, gate.shape[-1] // self.num_heads)).view_as(mixed)


def _gate(config: DraftConfig, quant_config, prefix: str) -> nn.Module | None:
    if config.gate is None:
        return None
    width = config.num_heads * (1 if config.gate == "per-head" else config.head_dim)
    return ColumnParallelLinear(config.hidden_size, width, bias=False, quant_config=quant_config, prefix=prefix)
