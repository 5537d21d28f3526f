"""Feed-forward part of a draft layer."""

import torch
from torch import nn

from sglang_dflash.checkpoints.config import Activation, DraftConfig
from sglang_dflash.host.model_api import MergedColumnParallelLinear, RowParallelLinear, SiluAndMul


class ClampedSwiGLU(nn.Module):
    """gate * sigmoid(alpha * gate) * (up + 1), gate and up clamped at ``limit`` (MiniMax)."""

    def __init__(self, alpha: float, limit: float):
        super().__init__()
        self._alpha, self._limit = alpha, limit

    def forward(self, gate_up: torch.Tensor) -> torch.Tensor:
        """gate_up [tokens, 2 * width] -> [tokens, width]."""
        gate, up = gate_up.chunk(2, -1)
        gate = gate.clamp(max=self._limit)
        up = up.clamp(-self._limit, self._limit)
        return gate * torch.sigmoid(self._alpha * gate) * (up + 1)


class DraftMLP(nn.Module):
    """Gated feed-forward of one draft layer."""

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
        self.act_fn = _activation(config.activation)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        gate_up, _ = self.gate_up_proj(hidden)
        out, _ = self.down_proj(self.act_fn(gate_up))
        return out


def _activation(activation: Activation) -> nn.Module:
    if activation.limit is None:
        return SiluAndMul()
    return ClampedSwiGLU(activation.alpha, activation.limit)
