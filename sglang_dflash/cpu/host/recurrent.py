"""What the recurrent half of a hybrid model is served with: its backend's base class, and its state pool."""

from sglang.srt.layers.attention.hybrid_linear_attn_backend import MambaAttnBackendBase
from sglang.srt.layers.radix_linear_attention import RadixLinearAttention

from sglang_dflash.host.contract import Touch

__all__ = ["LayerStates", "MambaAttnBackendBase", "RadixLinearAttention"]

_BACKENDS = "sglang.srt.layers.attention.hybrid_linear_attn_backend"
_LINEAR = "a public interface for linear-attention backends"
TOUCHES = (
    Touch(
        f"{_BACKENDS}:MambaAttnBackendBase",
        "base class: finds each request's state slot, and the snapshots that the radix cache asks for",
        _LINEAR,
    ),
    Touch(f"{_BACKENDS}:MambaAttnBackendBase.init_forward_metadata", "extended", _LINEAR, ("forward_batch",)),
    Touch(
        f"{_BACKENDS}:MambaAttnBackendBase._track_mamba_state_decode",
        "called: snapshots of plain decoding",
        _LINEAR,
        ("forward_batch", "conv_states", "ssm_states", "cache_indices", "layer_id"),
    ),
    Touch(
        "sglang.srt.layers.attention.mamba.mamba2_metadata:ForwardMetadata",
        "which states a prefill keeps for the radix cache",
        _LINEAR,
        (
            "mamba_cache_indices",
            "has_mamba_track_mask",
            "mamba_track_mask_indices",
            "track_conv_indices",
            "track_chunk_idx",
            "track_ssm_h_batch_src",
            "track_ssm_h_dst",
            "track_ssm_final_src",
            "track_ssm_final_dst",
        ),
    ),
    Touch(
        "sglang.srt.mem_cache.memory_pool:HybridReqToTokenPool.mamba2_layer_index",
        "a layer's place in the state pool",
        _LINEAR,
        ("layer_id",),
    ),
    Touch(
        "sglang.srt.mem_cache.memory_pool:MambaPool.SpeculativeState",
        "states per request, and per drafted node",
        _LINEAR,
        ("conv", "temporal", "intermediate_ssm", "intermediate_conv_window"),
    ),
    Touch(
        "sglang.srt.layers.radix_linear_attention:RadixLinearAttention",
        "shapes and parameters of a gated-delta-net layer",
        _LINEAR,
    ),
)


class LayerStates:
    """The state tensors of one recurrent layer, of all requests and all drafted nodes."""

    def __init__(self, pool, layer_id: int):
        index, states = pool.mamba2_layer_index(layer_id), pool.mamba_pool.mamba_cache
        self.conv = states.conv[0][index]  # [slots, C, K - 1]
        self.temporal = states.temporal[index]  # [slots, heads, V, K]
        if isinstance(states, pool.mamba_pool.SpeculativeState):
            self.node_windows = states.intermediate_conv_window[0][index]  # [requests, W, C, K - 1]
            self.node_states = states.intermediate_ssm[index]  # [requests, W, heads, V, K]
