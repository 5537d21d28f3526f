"""Mamba-2 layers: SGLang's backend that ours extends, and the mixer it is given."""

from sglang.srt.layers.attention import hybrid_linear_attn_backend
from sglang.srt.layers.attention.hybrid_linear_attn_backend import Mamba2AttnBackend
from sglang.srt.layers.attention.mamba.mamba import MambaMixer2

from sglang_dflash.host.contract import Touch

__all__ = ["Mamba2AttnBackend", "has_mamba2_layers", "replace_backend"]

_BACKEND = "sglang.srt.layers.attention.hybrid_linear_attn_backend:Mamba2AttnBackend"
_MIXER = "sglang.srt.layers.attention.mamba.mamba:MambaMixer2"
_LINEAR = "a public interface for linear-attention backends"
TOUCHES = (
    Touch(
        _BACKEND,
        "base class, which SGLang's models ask for by type; replaced, since it calls Triton",
        _LINEAR,
        ("model_runner",),
    ),
    Touch(
        f"{_BACKEND}.forward",
        "overridden: Triton",
        _LINEAR,
        (
            "mixer",
            "hidden_states",
            "output",
            "layer_id",
            "forward_batch",
            "mup_vector",
            "use_triton_causal_conv",
        ),
    ),
    Touch(_MIXER, "a layer's projections, parameters and gated norm", _LINEAR),
)


def has_mamba2_layers(model) -> bool:
    """True for models with layers of SGLang's Mamba-2 mixer."""
    return any(isinstance(module, MambaMixer2) for module in model.modules())


def replace_backend(backend: type) -> None:
    """The backend of Mamba-2 layers; SGLang's hybrid wrapper looks it up by name."""
    hybrid_linear_attn_backend.Mamba2AttnBackend = backend
