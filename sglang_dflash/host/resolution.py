"""What happens to DFLASH's launch arguments while SGLang resolves them, in the launching process only."""

import json
import logging
import os
from pathlib import Path
from typing import Any

from sglang_dflash.checks import check_pair, check_tensors, mask_token_id, read_tensors, read_vocabulary
from sglang_dflash.checks.pair import target_depth
from sglang_dflash.config import DraftConfig, local_folder, parse_draft_config, read_json
from sglang_dflash.errors import DFlashError
from sglang_dflash.host.contract import Touch
from sglang_dflash.host.targets import check_capture
from sglang_dflash.options import Options

logger = logging.getLogger(__name__)

TOUCHES = (
    Touch(
        "sglang.srt.arg_groups.resolution_hooks:register_resolution_hook",
        "wraps two steps of the resolution of arguments",
        "never: made for plug-ins",
        ("name",),
    ),
    Touch(
        "sglang.srt.arg_groups.serving_hook:handle_deprecated_args",
        "wrapped: an early step, where the old environment flags turn overlap scheduling off",
        "published launch commands no longer use them",
        ("server_args",),
    ),
    Touch(
        "sglang.srt.arg_groups.speculative_hook:handle_speculative_decoding",
        "wrapped: target and draft are checked before it",
        "SGLang refuses a draft that does not fit before it loads weights",
        ("server_args",),
    ),
    Touch(
        "sglang.srt.arg_groups.overrides:resolving_view",
        "reads arguments as resolved so far",
        "never: made for plug-ins",
        ("server_args",),
    ),
    Touch(
        "sglang.srt.arg_groups.overrides:declare_resolution",
        "turns overlap scheduling off",
        "never: made for plug-ins",
        ("server_args", "source"),
    ),
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
    Touch(
        "sglang.srt.environ:envs.SGLANG_ENABLE_OVERLAP_PLAN_STREAM", "reported in the log", "SGLang drops it"
    ),
)

# Environment flags of earlier SGLang versions: off meant speculation without overlap scheduling.
OVERLAP_FLAGS = ("SGLANG_ENABLE_SPEC_V2", "SGLANG_ENABLE_DFLASH_SPEC_V2")
PLAN_STREAM_FLAG = "SGLANG_ENABLE_OVERLAP_PLAN_STREAM"
_ON, _OFF = ("1", "true", "yes", "y"), ("0", "false", "no", "n")


def install() -> None:
    """Register the two resolution hooks; once per process."""
    from sglang.srt.arg_groups.resolution_hooks import register_resolution_hook

    register_resolution_hook("handle_deprecated_args")(_apply_environment_flags)
    register_resolution_hook("handle_speculative_decoding")(_check_before_speculation)


def _is_dflash(cfg) -> bool:
    return (cfg.speculative_algorithm or "").upper() == "DFLASH"


def _apply_environment_flags(server_args, previous) -> None:
    previous(server_args)
    from sglang.srt.arg_groups.overrides import declare_resolution, resolving_view

    cfg = resolving_view(server_args)
    if not _is_dflash(cfg):
        return
    wants = {name: flag_value(name, os.environ[name]) for name in OVERLAP_FLAGS if os.environ.get(name)}
    off = [name for name, on in wants.items() if not on]
    if off:
        declare_resolution(server_args, "sglang_dflash.environment_flags", disable_overlap_schedule=True)
        logger.info("sglang-dflash: %s=0 turns overlap scheduling off (--disable-overlap-schedule)", off[0])
    elif wants:
        state = (
            "off, by --disable-overlap-schedule"
            if cfg.disable_overlap_schedule
            else "on, as without the flag"
        )
        logger.info("sglang-dflash: %s=1: overlap scheduling is %s", " and ".join(wants), state)


def flag_value(name: str, text: str) -> bool:
    """An on/off environment flag; DFlashError where the text is neither."""
    lowered = text.strip().lower()
    if lowered not in _ON + _OFF:
        raise DFlashError(name, f"is {text!r}", "use 1 or 0")
    return lowered in _ON


def _report_plan_stream(cfg) -> None:
    text = os.environ.get(PLAN_STREAM_FLAG)
    if text and flag_value(PLAN_STREAM_FLAG, text):
        effect = "without effect on a CPU" if str(cfg.device).startswith("cpu") else "on, as its name says"
        logger.info(
            "sglang-dflash: %s=1: planning rounds on a stream of its own is %s", PLAN_STREAM_FLAG, effect
        )


def _check_before_speculation(server_args, previous) -> None:
    from sglang.srt.arg_groups.overrides import resolving_view

    cfg = resolving_view(server_args)
    if _is_dflash(cfg):
        _report_plan_stream(cfg)
        if Options.from_env().worker == "dflash":
            _check(server_args, cfg)
    previous(server_args)


def _check(server_args, cfg) -> None:
    """Refuse at once what would fail, or go wrong silently, after the weights are loaded."""
    path = cfg.speculative_draft_model_path
    if path is None:
        raise DFlashError(
            "--speculative-draft-model-path", "is missing", "name the draft's folder or Hugging Face id"
        )
    if cfg.pp_size != 1:
        raise DFlashError("--pp-size", f"is {cfg.pp_size}, DFLASH runs with 1", "use --tp-size instead")
    folder = local_folder(path, cfg.speculative_draft_model_revision, "--speculative-draft-model-path")
    draft = parse_draft_config(_draft_config(cfg, path, folder))
    if draft.unsupported_variant is not None:
        _require_builtin(draft.unsupported_variant)
        return
    target = target_facts(server_args)
    check_pair(
        target,
        draft,
        block_size=_asked_block_size(cfg),
        window=cfg.speculative_draft_window_size,
        tp_size=cfg.tp_size // max(1, cfg.attn_dp_size),
    )
    depth = target_depth(target)
    if depth is not None:
        check_capture(target["architecture"], draft.layer_ids_for(depth), depth)
    _check_mask_token(cfg, draft, target["vocab_size"])
    # Of a repository in the hub's cache, only a part may be here; loading it is strict, too.
    if Path(path).is_dir() and (tensors := read_tensors(folder)) is not None:
        check_tensors(tensors, draft)
    _log_block_size(cfg, draft)


def _draft_config(cfg, path: str, folder: Path | None) -> dict[str, Any]:
    overrides = json.loads(cfg.json_model_override_args)
    if folder is not None:
        return read_json(folder / "config.json", "--speculative-draft-model-path") | overrides
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
        raise DFlashError(
            "--speculative-draft-model-path", f"{path}: {first_line}", "fetch it, or give a folder"
        ) from None
    return config.to_dict()


def _require_builtin(variant: str) -> None:
    """Only SGLang's worker implements the variants of others, and it does so on accelerators."""
    from sglang.srt.platforms import current_platform

    if current_platform.is_out_of_tree():
        raise DFlashError(
            "draft",
            f"is of the variant {variant}, which the CPU platform cannot run",
            "use a plain DFlash draft",
        )


def target_facts(server_args) -> dict[str, Any]:
    """What the checks need of the target's config, as SGLang will serve it."""
    from sglang.srt.arg_groups.model_override_base import model_config_of

    model = model_config_of(server_args)
    text = model.hf_text_config
    return {
        "architecture": (model.hf_config.architectures or [""])[0],
        "hidden_size": getattr(text, "hidden_size", None),
        "vocab_size": model.vocab_size,
        "num_hidden_layers": getattr(text, "num_hidden_layers", None),
        "num_loops": getattr(text, "num_loops", 1),
    }


def _asked_block_size(cfg) -> int | None:
    given = {cfg.speculative_num_draft_tokens, cfg.speculative_dflash_block_size} - {None}
    if len(given) > 1:
        raise DFlashError(
            "--speculative-num-draft-tokens",
            f"is {cfg.speculative_num_draft_tokens}, --speculative-dflash-block-size is "
            f"{cfg.speculative_dflash_block_size}",
            "give one of them",
        )
    return next(iter(given), None)


def _check_mask_token(cfg, draft: DraftConfig, vocab_size: int) -> None:
    path = cfg.tokenizer_path or cfg.model_path
    folder = local_folder(path) if Path(path).is_dir() or "/" in path else None
    vocabulary = None if folder is None else read_vocabulary(folder)
    if vocabulary is not None:
        mask_token_id(draft, vocabulary, vocab_size)


def _log_block_size(cfg, draft: DraftConfig) -> None:
    asked = _asked_block_size(cfg)
    if asked is not None and asked != draft.block_size:
        logger.info(
            "sglang-dflash: blocks of %d, the draft was trained on blocks of %d", asked, draft.block_size
        )
