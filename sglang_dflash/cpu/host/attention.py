"""What an attention backend is built from."""

from sglang.srt.layers.attention.attention_registry import ATTENTION_BACKENDS, register_attention_backend
from sglang.srt.layers.attention.base_attn_backend import AttentionBackend
from sglang.srt.layers.radix_attention import AttentionType
from sglang.srt.mem_cache.memory_pool import MLATokenToKVPool
from sglang.srt.mem_cache.swa_memory_pool import SWAKVPool

from sglang_dflash.host.contract import Touch

__all__ = [
    "ATTENTION_BACKENDS",
    "AttentionBackend",
    "AttentionType",
    "MLATokenToKVPool",
    "SWAKVPool",
    "absorb_latent_attention",
    "register_attention_backend",
]

_PUBLIC = "never: public"
_ROWS = "one interface to where a layer's keys and values lie"
TOUCHES = (
    Touch(
        "sglang.srt.layers.attention.attention_registry:ATTENTION_BACKENDS",
        "is our backend named already?",
        "never: public",
    ),
    Touch("sglang.srt.mem_cache.memory_pool:MLATokenToKVPool", "rows of latent attention", _ROWS),
    Touch("sglang.srt.mem_cache.memory_pool:MLATokenToKVPool.get_key_buffer", "read and written", _ROWS, ("layer_id",)),
    Touch(
        "sglang.srt.models.gemma4_mm:Gemma4ForConditionalGeneration.prepare_attn_masks",
        "asks for fa_impl_ver, and writes image_token_ranges into forward_metadata",
        "SGLang names a backend's ability instead of its version",
        ("forward_batch", "input_ids", "mask_dtype"),
    ),
    Touch("sglang.srt.mem_cache.swa_memory_pool:SWAKVPool", "sliding layers' own pool", _ROWS),
    Touch(
        "sglang.srt.mem_cache.swa_memory_pool:SWAKVPool.translate_loc_from_full_to_swa",
        "slots of the sliding layers",
        _ROWS,
        ("kv_indices",),
    ),
    Touch(
        "sglang.srt.models.deepseek_common.attention_backend_handler:AttentionBackendRegistry.register",
        "latent attention runs absorbed under our backend, in every mode",
        _PUBLIC,
        ("backend_name", "handler_func"),
    ),
    Touch(
        "sglang.srt.models.deepseek_common.attention_forward_methods.forward_methods:AttnForwardMethod.MLA",
        "the absorbed form",
        _PUBLIC,
    ),
    Touch("sglang.srt.layers.attention.base_attn_backend:AttentionBackend", "base class of the backend", _PUBLIC),
    Touch(
        "sglang.srt.layers.attention.base_attn_backend:AttentionBackend.forward",
        "overridden: one body for every mode",
        _PUBLIC,
        ("q", "k", "v", "layer", "forward_batch", "save_kv_cache"),
    ),
    Touch(
        "sglang.srt.layers.attention.base_attn_backend:AttentionBackend.init_forward_metadata",
        "overridden: plans a forward pass",
        _PUBLIC,
        ("forward_batch",),
    ),
    Touch(
        "sglang.srt.layers.attention.base_attn_backend:AttentionBackend.needs_cpu_seq_lens",
        "set False",
        _PUBLIC,
    ),
    Touch(
        "sglang.srt.layers.attention.attention_registry:register_attention_backend",
        "names our backend",
        _PUBLIC,
    ),
    Touch(
        "sglang.srt.layers.radix_attention:AttentionType.ENCODER_ONLY",
        "the draft's block sees all of itself",
        _PUBLIC,
    ),
    Touch(
        "sglang.srt.layers.radix_attention:RadixAttention",
        "fields of the layer the backend serves",
        _PUBLIC,
        (
            "num_heads",
            "num_kv_heads",
            "head_dim",
            "v_head_dim",
            "sliding_window_size",
            "logit_cap",
            "attn_type",
        ),
    ),
    Touch(
        "sglang.srt.model_executor.forward_batch_info:ForwardBatch",
        "fields the plan of a forward pass reads",
        _PUBLIC,
        (
            "req_pool_indices",
            "seq_lens",
            "extend_seq_lens_cpu",
            "extend_prefix_lens_cpu",
            "out_cache_loc",
            "spec_info",
        ),
    ),
)


def absorb_latent_attention(backend: str) -> None:
    """Models with latent attention call ``backend`` with absorbed queries over latent rows, prefill included."""
    from sglang.srt.models.deepseek_common.attention_backend_handler import AttentionBackendRegistry
    from sglang.srt.models.deepseek_common.attention_forward_methods.forward_methods import AttnForwardMethod

    AttentionBackendRegistry.register(backend, lambda attention, forward_batch: AttnForwardMethod.MLA)
