"""DFlash draft model in SGLang's layers (arXiv 2602.06036, section 4 and appendix A.3).

A Qwen3-style stack over one block [anchor, mask x (B - 1)]. Its context is not text but the target's
hidden states: their K and V are written into every layer's cache by ``context.inject``, so that
``forward`` computes the block only.
"""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from sglang_dflash.config import DraftConfig, parse_draft_config
from sglang_dflash.draft.weights import load_strictly
from sglang_dflash.host.model_api import (
    AttentionType,
    LogitsProcessorOutput,
    MergedColumnParallelLinear,
    QKVParallelLinear,
    RadixAttention,
    ReplicatedLinear,
    RMSNorm,
    RowParallelLinear,
    SiluAndMul,
    get_parallel,
    get_rope,
)


class DraftAttention(nn.Module):
    """Attention of one draft layer: the block's queries over injected context and the block itself."""

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
        self.q_norm = RMSNorm(config.head_dim, eps=config.rms_norm_eps)
        self.k_norm = RMSNorm(config.head_dim, eps=config.rms_norm_eps)
        self.rotary_emb = get_rope(
            config.head_dim,
            rotary_dim=config.head_dim,
            max_position=config.max_position_embeddings,
            base=config.rope_theta,
            rope_scaling=None if config.rope_scaling is None else dict(config.rope_scaling),
            is_neox_style=True,
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

    def forward(self, positions: torch.Tensor, hidden: torch.Tensor, forward_batch) -> torch.Tensor:
        qkv, _ = self.qkv_proj(hidden)
        q, k, v = qkv.split([self.q_size, self.kv_size, self.kv_size], dim=-1)
        q = self.q_norm(q.reshape(-1, self.head_dim)).view(-1, self.q_size)
        k = self.k_norm(k.reshape(-1, self.head_dim)).view(-1, self.kv_size)
        q, k = self.rotary_emb(positions, q, k)
        out, _ = self.o_proj(self.attn(q, k, v, forward_batch))
        return out


class DraftMLP(nn.Module):
    """SwiGLU feed-forward of one draft layer."""

    def __init__(self, config: DraftConfig, quant_config=None, prefix: str = ""):
        super().__init__()
        self.gate_up_proj = MergedColumnParallelLinear(
            config.hidden_size,
            [config.intermediate_size] * 2,
            bias=False,
            quant_config=quant_config,
            prefix=f"{prefix}.gate_up_proj",
        )
        self.down_proj = RowParallelLinear(
            config.intermediate_size,
            config.hidden_size,
            bias=False,
            quant_config=quant_config,
            prefix=f"{prefix}.down_proj",
        )
        self.act_fn = SiluAndMul()

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        gate_up, _ = self.gate_up_proj(hidden)
        out, _ = self.down_proj(self.act_fn(gate_up))
        return out


class DraftLayer(nn.Module):
    """Pre-norm decoder layer; the residual travels beside the hidden state, as in SGLang's models."""

    def __init__(self, config: DraftConfig, layer_id: int, quant_config=None, prefix: str = ""):
        super().__init__()
        self.self_attn = DraftAttention(config, layer_id, quant_config, f"{prefix}.self_attn")
        self.mlp = DraftMLP(config, quant_config, f"{prefix}.mlp")
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, positions, hidden, residual, forward_batch):
        if residual is None:
            residual = hidden
            hidden = self.input_layernorm(hidden)
        else:
            hidden, residual = self.input_layernorm(hidden, residual)
        hidden = self.self_attn(positions, hidden, forward_batch)
        hidden, residual = self.post_attention_layernorm(hidden, residual)
        return self.mlp(hidden), residual


class DFlashDraftModel(nn.Module):
    """The whole draft. ``bind_target`` must be called before the first ``forward``.

    Parameters are those of published checkpoints: ``fc`` and ``hidden_norm`` fuse the context features,
    ``layers.*`` and ``norm`` draft; embedding and head are the target's.
    """

    # Nobody reads a draft's own hidden states.
    layers_to_capture = ()

    def __init__(self, config, quant_config=None, prefix: str = ""):
        super().__init__()
        self.config = config
        self.draft_config = draft = parse_draft_config(config.to_dict())
        base = f"{prefix}." if prefix else ""
        self.fc = ReplicatedLinear(
            draft.num_context_features * draft.hidden_size,
            draft.hidden_size,
            bias=False,
            quant_config=quant_config,
            prefix=f"{base}fc",
        )
        self.hidden_norm = RMSNorm(draft.hidden_size, eps=draft.rms_norm_eps)
        self.layers = nn.ModuleList(
            DraftLayer(draft, i, quant_config, f"{base}layers.{i}") for i in range(draft.num_layers)
        )
        self.norm = RMSNorm(draft.hidden_size, eps=draft.rms_norm_eps)
        # Bumped by every load, so that weights packed elsewhere know they are stale.
        self.weights_version = 0
        self._embed: Callable[[torch.Tensor], torch.Tensor] | None = None
        self._head: Callable[[torch.Tensor], torch.Tensor] | None = None

    def bind_target(self, embed: Callable, head: Callable) -> None:
        """Take the target's ends: ``embed`` ids [tokens] -> [tokens, hidden], and the output ``head``.

        Both run inside the forward pass, hence inside its captured graph.
        """
        self._embed, self._head = embed, head

    def get_attention_sliding_window_size(self) -> int | None:
        """Largest window of the sliding layers in SGLang's count (own token excluded), None without any."""
        windows = [layer.window - 1 for layer in self.draft_config.layers if layer.window is not None]
        return max(windows) if windows else None

    def forward_embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Embeddings of a block's ids [tokens] -> [tokens, hidden]; runs inside captured graphs."""
        return self._embed(input_ids)

    @torch.no_grad()
    def forward(
        self, input_ids: torch.Tensor, positions: torch.Tensor, forward_batch
    ) -> LogitsProcessorOutput:
        """What the head makes of the block's hidden states [tokens, hidden], final norm applied.

        The head's output [tokens, ...] travels as ``hidden_states``, the field that graph replay hands on.
        """
        hidden = self.decode(input_ids, positions, forward_batch, self.forward_embed(input_ids))
        return LogitsProcessorOutput(next_token_logits=None, hidden_states=self._head(hidden))

    def decode(self, input_ids, positions, forward_batch, hidden: torch.Tensor) -> torch.Tensor:
        """hidden [tokens, hidden] through all layers and the final norm; a platform may put a faster pass here."""
        residual = None
        for layer in self.layers:
            hidden, residual = layer(positions, hidden, residual, forward_batch)
        return self.norm(hidden, residual)[0]

    def fuse_features(self, features: torch.Tensor) -> torch.Tensor:
        """Context features [tokens, K * hidden] -> [tokens, hidden]: fc, then norm (appendix A.3)."""
        fused, _ = self.fc(features)
        return self.hidden_norm(fused)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Load a checkpoint's tensors; the first load must be complete.

        Raises:
            DFlashError: a tensor is missing, unknown or of the wrong shape.
        """
        load_strictly(self, self.draft_config, weights, complete=self.weights_version == 0)
        self.weights_version += 1
