"""Server-argument resolution on the CPU platform: the seams its defaults go through."""

from sglang.srt.arg_groups import choices
from sglang.srt.arg_groups.model_override_base import model_config_of
from sglang.srt.arg_groups.overrides import declare_resolution, resolving_view
from sglang.srt.arg_groups.resolution_hooks import register_resolution_hook
from sglang.srt.utils.hf_transformers_utils import get_config

from sglang_dflash.host.contract import Touch

__all__ = [
    "add_backend_choice",
    "declare_resolution",
    "get_config",
    "model_config_of",
    "register_resolution_hook",
    "resolving_view",
]

_HOOKS = "SGLang asks an out-of-tree platform before its CPU defaults"
_ARGS = ("server_args",)
TOUCHES = (
    Touch(
        "sglang.srt.arg_groups.resolution_hooks:register_resolution_hook",
        "wraps the argument steps named below",
        "never: public",
        ("name",),
    ),
    Touch("sglang.srt.arg_groups.overrides:declare_resolution", "writes a default", "never: public", ("source",)),
    Touch("sglang.srt.arg_groups.overrides:resolving_view", "reads what the user gave", "never: public"),
    Touch("sglang.srt.arg_groups.platform_hook:handle_cpu_backends", "wrapped: would choose intel_amx", _HOOKS, _ARGS),
    Touch("sglang.srt.arg_groups.cuda_graph_hook:handle_cuda_graph_config", "wrapped: graphs off", _HOOKS, _ARGS),
    Touch(
        "sglang.srt.arg_groups.model_hook:handle_model_specific_adjustments",
        "wrapped: its lists of attention backends know none of others",
        _HOOKS,
        _ARGS,
    ),
    Touch(
        "sglang.srt.arg_groups.serving_hook:handle_missing_default_values",
        "wrapped: dtype of the checkpoint",
        _HOOKS,
        _ARGS,
    ),
    Touch("sglang.srt.arg_groups.platform_hook:handle_platform_defaults", "wrapped: sizes of the pools", _HOOKS, _ARGS),
    Touch(
        "sglang.srt.arg_groups.kv_cache_hook:handle_page_major_kv_layout",
        "wrapped: refuses unified pools, whose slots are virtual",
        "the CPU platform's attention and states read strided rows",
        _ARGS,
    ),
    Touch("sglang.srt.arg_groups.model_override_base:model_config_of", "sizes of the model's KV rows", _HOOKS),
    Touch("sglang.srt.utils.hf_transformers_utils:get_config", "the checkpoint's dtype", "never: public"),
    *(
        Touch(f"sglang.srt.arg_groups.choices:{name}", "is our backend named already?", "never: public")
        for name in ("ATTENTION_BACKEND_CHOICES", "DRAFT_ATTENTION_BACKEND_CHOICES")
    ),
    Touch("sglang.srt.arg_groups.choices:add_attention_backend_choices", "names our backend", "never: public"),
    Touch(
        "sglang.srt.arg_groups.choices:add_draft_attention_backend_choices",
        "names our backend",
        "never: public",
    ),
)


def add_backend_choice(name: str) -> None:
    """Let ``--attention-backend`` and the draft's backend option accept ``name`` (idempotent)."""
    if name not in choices.ATTENTION_BACKEND_CHOICES:
        choices.add_attention_backend_choices([name])
    if name not in choices.DRAFT_ATTENTION_BACKEND_CHOICES:
        choices.add_draft_attention_backend_choices([name])
