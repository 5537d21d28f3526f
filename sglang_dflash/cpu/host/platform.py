"""What an out-of-tree platform is built from: SGLang's platform base class and its server-argument seams."""

from sglang.srt.platforms.device_mixin import PlatformEnum
from sglang.srt.platforms.interface import PlatformCapabilities, SRTPlatform

from sglang_dflash.host.contract import Touch

__all__ = ["PlatformCapabilities", "PlatformEnum", "SRTPlatform"]

_PUBLIC = "never: public"
TOUCHES = (
    Touch("sglang.srt.platforms.interface:SRTPlatform", "base class of the CPU platform", _PUBLIC),
    *(
        Touch(
            f"sglang.srt.platforms.interface:SRTPlatform.{name}",
            "overridden by the CPU platform",
            _PUBLIC,
            parameters,
        )
        for name, parameters in (
            ("get_default_attention_backend", ()),
            ("get_default_speculative_draft_attention_backend", ("algorithm",)),
            ("supports_speculative_algorithm", ("algorithm",)),
            ("supports_speculative_draft_attention_backend", ("algorithm", "backend")),
            ("get_speculative_worker_cls", ("algorithm",)),
            ("get_speculative_cache_locs_fn", ()),
            ("get_kv_pool_cls", ("kind",)),
            ("get_dispatch_key_name", ()),
            ("get_compile_backend", ("mode",)),
            ("support_mamba_cache_extra_buffer", ()),
            ("init_backend", ()),
            ("post_load_model", ("model",)),
        )
    ),
    Touch(
        "sglang.srt.platforms.interface:PlatformCapabilities",
        "all False: SGLang then takes its torch allocators and eager runners",
        _PUBLIC,
        ("supports_triton", "graph_capture"),
    ),
    Touch("sglang.srt.platforms.device_mixin:PlatformEnum.OOT", "marks the platform as out of tree", _PUBLIC),
    Touch("sglang.srt.platforms.device_mixin:DeviceMixin.get_device", "overridden: the device is cpu", _PUBLIC),
)
