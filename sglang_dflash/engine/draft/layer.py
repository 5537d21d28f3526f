"""Decoder layer of the draft, plain or with DFlash 2's convolutions around its two parts."""

import torch
from torch import nn

from sglang_dflash.checkpoints.config import DraftConfig
from sglang_dflash.engine.draft.attention import DraftAttention
from sglang_dflash.engine.draft.convolution import BlockConvolution
from sglang_dflash.engine.draft.mlp import DraftMLP
from sglang_dflash.engine.draft.norms import norm_class


class DraftLayer(nn.Module):
    """Pre-norm decoder layer; the residual travels beside the hidden state, as in SGLang's models."""

    def __init__(self, config: DraftConfig, layer_id: int, quant_config=None, prefix: str = ""):
        super().__init__()
        norm = norm_class(config)
        self.self_attn = DraftAttention(config, layer_id, quant_config, f"{prefix}.self_attn")
        self.mlp = DraftMLP(config, quant_config, f"{prefix}.mlp")
        self.input_layernorm = norm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = norm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, positions, hidden, residual, forward_batch):
        if residual is None:
            residual = hidden
            hidden = self.input_layernorm(hidden)
        else:
            hidden, residual = self.input_layernorm(hidden, residual)
        hidden = self.attend(positions, hidden, forward_batch)
        hidden, residual = self.post_attention_layernorm(hidden, residual)
        return self.feed_forward(hidden), residual

    def bind(self, block_size: int, attention_backend: str) -> None:
        """Take what this run decides: tokens in a block, and SGLang's attention backend of the draft."""
        self.self_attn.bind(attention_backend)

    def attend(self, positions: torch.Tensor, hidden: torch.Tensor, forward_batch) -> torch.Tensor:
        """Attention over normed hidden states [tokens, hidden]."""
        return self.self_attn(positions, hidden, forward_batch)

    def feed_forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Feed-forward over normed hidden states [tokens, hidden]."""
        return self.mlp(hidden)


class ConvolvedLayer(DraftLayer):
    """DFlash 2: each part's input and output are convolved along the block, with kernels from that input."""

    def __init__(self, config: DraftConfig, layer_id: int, quant_config=None, prefix: str = ""):
        super().__init__(config, layer_id, quant_config, prefix)
        assert config.convolution is not None  # the layer of such a draft
        self.attention_conv = BlockConvolution(config.hidden_size, config.block_size, config.convolution)
        self.mlp_conv = BlockConvolution(config.hidden_size, config.block_size, config.convolution)

    def bind(self, block_size: int, attention_backend: str) -> None:
        super().bind(block_size, attention_backend)
        self.attention_conv.bind(block_size)
        self.mlp_conv.bind(block_size)

    def attend(self, positions: torch.Tensor, hidden: torch.Tensor, forward_batch) -> torch.Tensor:
        hidden, kernel = self.attention_conv.enter(hidden)
        return self.attention_conv.leave(self.self_attn(positions, hidden, forward_batch), kernel)

    def feed_forward(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden, kernel = self.mlp_conv.enter(hidden)
        return self.mlp_conv.leave(self.mlp(hidden), kernel)
