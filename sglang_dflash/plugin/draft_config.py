"""Drafts in the layout of vLLM's speculators library, which SGLang cannot read, arrive as z-lab's."""

from sglang_dflash.checkpoints.config import from_speculators, is_speculators
from sglang_dflash.host.contract import Touch

PARSE_CONFIG = "sglang.srt.utils.hf_transformers.config.HfModelConfigParser.parse"

TOUCHES = (
    Touch(
        "sglang.srt.utils.hf_transformers.config:HfModelConfigParser.parse",
        "hooked (around): a config.json in vLLM's speculators layout becomes a Qwen3 config",
        "SGLang reads drafts of that library",
        ("self", "model", "trust_remote_code", "revision"),
    ),
    Touch(
        "sglang.srt.models.dflash:_flashinfer_top_k",
        "cleared on a host: it asks for CUDA; the built-in worker then takes torch's",
        "SGLang asks for the device before it takes flashinfer's",
        ("input", "k"),
    ),
    Touch(
        "torch.compiler:set_stance",
        "nothing is compiled on a host: it may lack a compiler, and Dynamo trips over SGLang's wrapped functions",
        "SGLang compiles its helpers on accelerators only",
        ("stance",),
    ),
)


def install() -> None:
    """Register the hook; once per process."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register(PARSE_CONFIG, parse_config, HookType.AROUND)


def parse_config(original, parser, model, trust_remote_code, revision=None, **kwargs):
    """A model's config; of drafts in the other layout a ``Qwen3Config`` with z-lab's fields."""
    raw = _speculators_config(model, revision) if "gguf_file" not in kwargs else None
    if raw is None:
        return original(parser, model, trust_remote_code=trust_remote_code, revision=revision, **kwargs)
    from transformers import Qwen3Config

    config = Qwen3Config.from_dict(from_speculators(raw))
    config._name_or_path = str(model)
    return config


def _speculators_config(model, revision) -> dict | None:
    from transformers import PretrainedConfig

    raw, _ = PretrainedConfig.get_config_dict(model, revision=revision)
    return raw if is_speculators(raw) and str(raw.get("speculators_model_type")).startswith("dflash") else None


def run_builtin_drafts_on_a_host() -> None:
    """Let SGLang's own DFlash 2 draft class run on the CPU platform: torch's top k, nothing compiled."""
    from sglang.srt.platforms import current_platform

    if current_platform.device_name != "sglang_dflash_cpu":
        return
    import torch
    from sglang.srt.models import dflash

    dflash._flashinfer_top_k = None
    # A host has no compiler to count on, and Dynamo trips over SGLang's wrapped functions.
    torch.compiler.set_stance("force_eager")
