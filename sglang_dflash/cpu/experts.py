"""Routed experts on a host: one pair of products per expert that was chosen, every activation of SGLang's models."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from sglang_dflash.cpu.host.operators import StandardCombineInput
from sglang_dflash.errors import DFlashError

_UNARY = {
    "silu": F.silu,
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "relu2": lambda x: F.relu(x).square(),
}


def activation_of(config) -> Callable[[torch.Tensor], torch.Tensor]:
    """The activation that SGLang's ``MoeRunnerConfig`` names: [rows, 2 * n], or [rows, n] ungated, -> [rows, n].

    Raises:
        DFlashError: a kind that is not implemented here.
    """
    alpha, limit = config.gemm1_alpha, config.gemm1_clamp_limit
    if config.activation == "silu" and config.is_gated and limit is not None:
        return _clamped(alpha, limit, interleaved=alpha is not None and config.gate_up_interleaved)
    unary = _UNARY.get(config.activation)
    if unary is None or alpha is not None:
        raise DFlashError("experts", f"activation {config.activation} does not run on the CPU platform", "use a GPU")
    if not config.is_gated:
        return unary

    def gated(x: torch.Tensor) -> torch.Tensor:
        gate, up = x.chunk(2, -1)
        return unary(gate).mul_(up)

    return gated


def _clamped(alpha: float | None, limit: float, interleaved: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """SwiGLU with bounds; with ``alpha`` the gate is x * sigmoid(alpha * x) and the linear part is shifted by one."""

    def clamped(x: torch.Tensor) -> torch.Tensor:
        gate, up = (x[..., ::2], x[..., 1::2]) if interleaved else x.chunk(2, -1)
        up = up.clamp(-limit, limit)
        if alpha is None:
            return F.silu(gate).clamp(max=limit) * up
        gate = gate.clamp(max=limit)
        return gate * torch.sigmoid(alpha * gate) * (up + 1)

    return clamped


def run_experts(self, layer, dispatch_output):
    """Forward of SGLang's unquantised experts. Hidden states [tokens, hidden], weights and ids [tokens, k]."""
    config = self.moe_runner_config
    if config.no_combine or config.apply_router_weight_on_input:
        raise DFlashError("experts", "uncombined or pre-weighted experts do not run on the CPU platform", "use a GPU")
    x = dispatch_output.hidden_states
    weights, ids, _ = dispatch_output.topk_output
    activate = activation_of(config)
    first, second = layer.w13_weight, layer.w2_weight
    first_bias, second_bias = getattr(layer, "w13_weight_bias", None), getattr(layer, "w2_weight_bias", None)
    mixed = torch.zeros_like(x, dtype=torch.float32)
    # A negative id marks a row of padding.
    for expert in ids[ids >= 0].unique().tolist():
        rows, places = (ids == expert).nonzero(as_tuple=True)
        inner = F.linear(x[rows], first[expert], _of(first_bias, expert, x.dtype))
        out = F.linear(activate(inner), second[expert], _of(second_bias, expert, x.dtype))
        mixed.index_add_(0, rows, out.float() * weights[rows, places, None].float())
    return StandardCombineInput(hidden_states=mixed.to(x.dtype))


def _of(bias: torch.Tensor | None, expert: int, dtype: torch.dtype) -> torch.Tensor | None:
    return None if bias is None else bias[expert].to(dtype)
