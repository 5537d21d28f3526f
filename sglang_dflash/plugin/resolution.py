"""What happens to DFLASH's launch arguments while SGLang resolves them, in the launching process only."""

import logging
import os

from sglang_dflash.checkpoints.checks.case import Case
from sglang_dflash.checkpoints.checks.findings import ERROR, WARNING
from sglang_dflash.checkpoints.checks.rules import find
from sglang_dflash.checkpoints.checks.serving import QUANTISED_CACHES, own_cache_dtype
from sglang_dflash.errors import DFlashError
from sglang_dflash.host.contract import Touch
from sglang_dflash.options import OVERLAP_FLAGS, Options, flag_value
from sglang_dflash.plugin.launch_case import launch_case

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
        "turns overlap scheduling off, and names the format of the draft's cache",
        "never: made for plug-ins",
        ("server_args", "source"),
    ),
    Touch("sglang.srt.environ:envs.SGLANG_ENABLE_OVERLAP_PLAN_STREAM", "reported in the log", "SGLang drops it"),
)

PLAN_STREAM_FLAG = "SGLANG_ENABLE_OVERLAP_PLAN_STREAM"
# Notes that a log should have.
_INFORMED = ("block-size-not-as-trained", "window-too-large")


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
        state = "off, by --disable-overlap-schedule" if cfg.disable_overlap_schedule else "on, as without the flag"
        logger.info("sglang-dflash: %s=1: overlap scheduling is %s", " and ".join(wants), state)


def _report_plan_stream(cfg) -> None:
    text = os.environ.get(PLAN_STREAM_FLAG)
    if text and flag_value(PLAN_STREAM_FLAG, text):
        effect = "without effect on a CPU" if str(cfg.device).startswith("cpu") else "on, as its name says"
        logger.info("sglang-dflash: %s=1: planning rounds on a stream of its own is %s", PLAN_STREAM_FLAG, effect)


def _check_before_speculation(server_args, previous) -> None:
    from sglang.srt.arg_groups.overrides import resolving_view

    cfg = resolving_view(server_args)
    if _is_dflash(cfg):
        _report_plan_stream(cfg)
        if Options.from_env().worker == "dflash":
            case = _check(server_args, cfg)
            _resolve_widths(server_args, cfg, case, previous)
            return
    previous(server_args)


def _resolve_widths(server_args, cfg, case: Case, previous) -> None:
    """Block size and verify width apart, and trees; what SGLang would refuse or overrule is not there meanwhile.

    SGLang takes ``--speculative-dflash-block-size`` as another name of the verify width, and its accounting of slots
    is right for trees with ``--speculative-eagle-topk 1``: the worker reads the flag as it was given.
    """
    from sglang.srt.arg_groups.overrides import declare_resolution

    block, width = cfg.speculative_dflash_block_size, cfg.speculative_num_draft_tokens
    source = "sglang_dflash.block_size"
    if case.is_wide:
        block, width = case.block_size, case.verify_width
        declare_resolution(server_args, source, speculative_eagle_topk=1, speculative_num_draft_tokens=width)
    if None in (block, width):
        previous(server_args)
        return
    declare_resolution(server_args, source, speculative_dflash_block_size=None)
    previous(server_args)
    declare_resolution(server_args, source, speculative_dflash_block_size=block)


def _check(server_args, cfg) -> Case:
    """Refuse at once what would fail, or go wrong silently, after the weights are loaded; warn of the rest."""
    if cfg.pp_size != 1:
        raise DFlashError("--pp-size", f"is {cfg.pp_size}, DFLASH runs with 1", "use --tp-size instead")
    case = launch_case(server_args, cfg)
    if case.draft.unsupported_variant is not None and not case.plan.on_cpu:
        return case  # the built-in worker serves it, and checks it itself
    for finding in find(case):
        if finding.severity == ERROR:
            raise finding.as_error()
        if finding.severity == WARNING:
            logger.warning("sglang-dflash: %s", finding)
        elif finding.name in _INFORMED:
            logger.info("sglang-dflash: %s", finding)
    _keep_draft_cache(server_args, cfg, case)
    return case


def _keep_draft_cache(server_args, cfg, case: Case) -> None:
    """A quantised KV cache is the target's alone: the draft's keys and values stay in its own number format."""
    if cfg.speculative_draft_kv_cache_dtype is not None or cfg.kv_cache_dtype not in QUANTISED_CACHES:
        return
    from sglang.srt.arg_groups.overrides import declare_resolution

    own = own_cache_dtype(case.raw, cfg.dtype)
    declare_resolution(server_args, "sglang_dflash.draft_cache", speculative_draft_kv_cache_dtype=own)
    what = "sglang-dflash: --kv-cache-dtype %s is the target's; the draft's cache stays in its own format, %s"
    logger.info(what, cfg.kv_cache_dtype, f"--speculative-draft-kv-cache-dtype {own}")
