"""Whether SGLang serves metrics, and how it labels them."""

from sglang.srt.runtime_context import get_observability, get_serving

from sglang_dflash.host.contract import Touch

TOUCHES = (
    Touch("sglang.srt.runtime_context:get_observability", "its enable_metrics", "never: public"),
    Touch("sglang.srt.runtime_context:get_serving", "its served_model_name, a label of metrics", "never: public"),
)


def metrics_label() -> str | None:
    """``model_name`` of this server's metrics; None without ``--enable-metrics``."""
    return get_serving().served_model_name if get_observability().enable_metrics else None
