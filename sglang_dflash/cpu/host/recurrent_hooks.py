"""Where SGLang's hybrid models call Triton on a host CPU, and how ours take its place."""

import sys
from collections.abc import Callable

from sglang.kernels.ops.attention.fla import fused_norm_gate, layernorm_gated
from sglang.srt.layers.attention import hybrid_linear_attn_backend
from sglang.srt.layers.attention.linear import gdn_backend
from sglang.srt.layers.radix_linear_attention import RadixLinearAttention

from sglang_dflash.host.contract import Touch
from sglang_dflash.host.recurrent_state import keep_window_per_node

_SEAM = "SGLang offers a platform seam"
_HYBRID = "sglang.srt.layers.attention.hybrid_linear_attn_backend"
_FLA = "sglang.kernels.ops.attention.fla"
_MODELS = "sglang.srt.models"
TOUCHES = (
    Touch(
        "sglang.srt.layers.attention.linear.gdn_backend:GDNAttnBackend",
        "replaced: Triton; SGLang's hybrid wrapper looks it up there",
        _SEAM,
        ("model_runner",),
    ),
    Touch(
        f"{_HYBRID}:scatter_mamba_states_after_mtp_verify",
        "replaced: Triton",
        _SEAM,
        (
            "mamba_caches",
            "state_indices_tensor",
            "last_correct_step_indices",
            "mamba_track_indices",
            "mamba_steps_to_track",
            "src_indices_raw",
        ),
    ),
    *(
        Touch(
            f"{_HYBRID}:{name}",
            "replaced: Triton",
            _SEAM,
            ("cache_indices", "mamba_track_mask", "mamba_track_indices", "batch_size", "check_freed_slots"),
        )
        for name in ("track_mamba_states_all_layers", "track_mamba_states_if_needed")
    ),
    Touch(
        f"{_FLA}.fused_norm_gate:FusedRMSNormGated.forward",
        "replaced: Triton",
        _SEAM,
        ("self", "x", "g", "residual", "prenorm", "residual_in_fp32"),
    ),
    Touch(f"{_FLA}.layernorm_gated:RMSNorm.forward", "replaced: Triton", _SEAM, ("self", "x", "z")),
    Touch(
        f"{_MODELS}.qwen3_next:fused_qkvzba_split_reshape_cat",
        "replaced: Triton",
        _SEAM,
        ("mixed_qkvz", "mixed_ba", "num_heads_qk", "num_heads_v", "head_qk", "head_v"),
    ),
    Touch(
        f"{_MODELS}.qwen3_5:fused_qkvzba_split_reshape_cat_contiguous",
        "replaced: Triton",
        _SEAM,
        ("mixed_qkvz", "mixed_ba", "num_heads_qk", "num_heads_v", "head_qk", "head_v"),
    ),
    Touch(
        f"{_MODELS}.qwen3_5:fused_sigmoid_mul",
        "replaced: Triton",
        _SEAM,
        ("attn_output", "gate", "inplace", "quant"),
    ),
    Touch(
        f"{_MODELS}.qwen2_moe:fused_gate_sigmoid_mul_add",
        "replaced: Triton",
        _SEAM,
        ("hidden_states", "gate_weight", "shared_output", "final_hidden_states"),
    ),
)


def has_gated_delta_layers(model) -> bool:
    """True for models with layers of SGLang's linear-attention class."""
    return any(isinstance(module, RadixLinearAttention) for module in model.modules())


def replace_state_moves(scatter_after_verify: Callable, track_all_layers: Callable, track_one_layer: Callable) -> None:
    """Commits and snapshots of recurrent states, of whatever kind, and a window per node in their pool."""
    hybrid_linear_attn_backend.scatter_mamba_states_after_mtp_verify = scatter_after_verify
    hybrid_linear_attn_backend.track_mamba_states_all_layers = track_all_layers
    hybrid_linear_attn_backend.track_mamba_states_if_needed = track_one_layer
    keep_window_per_node()


def replace_gated_delta(backend: type, norm: Callable, grouped_norm: Callable) -> None:
    """The backend of gated-delta-net layers, and the gated norms of such models."""
    gdn_backend.GDNAttnBackend = backend
    fused_norm_gate.FusedRMSNormGated.forward = norm
    layernorm_gated.RMSNorm.forward = grouped_norm


def replace_in_models(
    interleaved: Callable, contiguous: Callable, sigmoid_mul: Callable, add_gated_expert: Callable
) -> None:
    """Functions that the loaded model files hold by name."""
    for module, name, value in (
        ("qwen3_next", "fused_qkvzba_split_reshape_cat", interleaved),
        ("qwen3_5", "fused_qkvzba_split_reshape_cat_contiguous", contiguous),
        ("qwen3_5", "fused_sigmoid_mul", sigmoid_mul),
        ("qwen2_moe", "fused_gate_sigmoid_mul_add", add_gated_expert),
    ):
        loaded = sys.modules.get(f"{_MODELS}.{module}")
        if loaded is not None:
            setattr(loaded, name, value)
