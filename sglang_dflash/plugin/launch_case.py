"""A launch as the checks see it: the pair's configs as SGLang will serve them, and the plan in its arguments."""

import json
from pathlib import Path
from typing import Any

import torch

from sglang_dflash.checkpoints.catalogue import load_catalogue
from sglang_dflash.checkpoints.catalogue.command import generation_of
from sglang_dflash.checkpoints.checks import read_tensors
from sglang_dflash.checkpoints.checks.case import Case, Plan
from sglang_dflash.checkpoints.checks.tokenizer_files import Texts, read_texts
from sglang_dflash.checkpoints.config import (
    from_speculators,
    is_speculators,
    local_folder,
    parse_draft_config,
    read_draft_json,
)
from sglang_dflash.errors import DFlashError
from sglang_dflash.host.contract import Touch
from sglang_dflash.options import Options

_DRAFT = "--speculative-draft-model-path"

TOUCHES = (
    Touch(
        "sglang.srt.arg_groups.model_override_base:model_config_of",
        "the target's config as SGLang will serve it",
        "SGLang refuses a draft that does not fit before it loads weights",
        ("server_args",),
    ),
    Touch(
        "sglang.srt.utils.hf_transformers_utils:get_config",
        "fetches the config of a draft that is not on this machine yet",
        "SGLang refuses a draft that does not fit before it loads weights",
        ("model", "trust_remote_code", "revision", "model_override_args"),
    ),
)


def launch_case(server_args, cfg) -> Case:
    """The case of a launch; ``cfg`` are its arguments as resolved so far.

    Raises:
        DFlashError: the draft is not given, not there, or its config is refused.
    """
    path = cfg.speculative_draft_model_path
    if path is None:
        raise DFlashError(_DRAFT, "is missing", "name the draft's folder or Hugging Face id")
    folder = local_folder(path, cfg.speculative_draft_model_revision, _DRAFT)
    raw = _draft_config(cfg, path, folder)
    raw = from_speculators(raw) if is_speculators(raw) else raw
    target, dtype, context_length = _target(server_args)
    catalogue = load_catalogue()
    return Case(
        target=target,
        draft=parse_draft_config(raw),
        raw=raw,
        architecture=target["architectures"][0],
        plan=_plan(cfg, dtype, context_length),
        target_entry=catalogue.of_target(cfg.model_path),
        draft_entry=catalogue.of_draft(path),
        target_texts=_texts(cfg),
        draft_texts=None if folder is None else read_texts(folder),
        # Of a repository in the hub's cache, only a part may be here; loading it is strict, too.
        draft_tensors=read_tensors(folder) if folder is not None and Path(path).is_dir() else None,
    )


def _plan(cfg, dtype: str, context_length: int) -> Plan:
    from sglang.srt.platforms import current_platform

    options = Options.from_env()
    # With trees or lookups the number of draft tokens says nothing of the block.
    is_wide = (cfg.speculative_eagle_topk or 1) > 1 or options.lookup != "off"
    return Plan(
        block_size=cfg.speculative_dflash_block_size or (None if is_wide else cfg.speculative_num_draft_tokens),
        verify_width=cfg.speculative_num_draft_tokens,
        own_proposer=bool(options.proposer),
        branching=cfg.speculative_eagle_topk,
        shapes=options.shape,
        graphs=cfg.cuda_graph_config.decode.backend != "disabled",
        dp_size=cfg.attn_dp_size,
        lookup=options.lookup,
        window=cfg.speculative_draft_window_size,
        tp_size=cfg.tp_size // max(1, cfg.attn_dp_size),
        context_length=context_length,
        concurrency=cfg.max_running_requests,
        dtype=dtype,
        kv_dtype=cfg.kv_cache_dtype,
        draft_kv_dtype=cfg.speculative_draft_kv_cache_dtype,
        attention=cfg.prefill_attention_backend or cfg.attention_backend,
        draft_attention=cfg.speculative_draft_attention_backend,
        page_size=cfg.page_size,
        mamba=cfg.mamba_radix_cache_strategy if cfg.mamba_radix_cache_strategy != "auto" else None,
        generation=_generation(),
        on_cpu=current_platform.is_out_of_tree(),
    )


def _generation() -> str | None:
    """Of the GPU that will serve; None where it is not NVIDIA's."""
    if torch.version.hip is not None or not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return generation_of(f"{major}.{minor}")


def _target(server_args) -> tuple[dict[str, Any], str, int]:
    """(config, number format, context length) of the target as it will be served."""
    from sglang.srt.arg_groups.model_override_base import model_config_of

    model = model_config_of(server_args)
    text = model.hf_text_config
    served = {
        "architectures": list(model.hf_config.architectures or [""]),
        "hidden_size": getattr(text, "hidden_size", None),
        "vocab_size": model.vocab_size,
        "num_hidden_layers": getattr(text, "num_hidden_layers", None),
        "num_loops": getattr(text, "num_loops", 1),
        "quantization_config": getattr(model.hf_config, "quantization_config", None),
    }
    return text.to_dict() | served, str(model.dtype), model.context_len


def _texts(cfg) -> Texts | None:
    path = cfg.tokenizer_path or cfg.model_path
    folder = local_folder(path) if Path(path).is_dir() or "/" in path else None
    return None if folder is None else read_texts(folder)


def _draft_config(cfg, path: str, folder: Path | None) -> dict[str, Any]:
    overrides = json.loads(cfg.json_model_override_args)
    if folder is not None:
        return read_draft_json(folder, _DRAFT) | overrides
    from sglang.srt.utils.hf_transformers_utils import get_config

    try:
        config = get_config(
            path,
            trust_remote_code=cfg.trust_remote_code,
            revision=cfg.speculative_draft_model_revision,
            model_override_args=overrides,
        )
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise DFlashError(_DRAFT, f"{path}: {first_line}", "fetch it, or give a folder") from None
    return config.to_dict()
