"""Puts our worker behind ``--speculative-algorithm DFLASH``, in every process, or stops the process."""

import logging
import os

from sglang_dflash import __version__
from sglang_dflash.errors import DFlashError, end_process
from sglang_dflash.host.contract import Touch, require_version
from sglang_dflash.plugin.unsupported import CREATE_WORKER, refuse_dflash

logger = logging.getLogger(__name__)

ROW_HEADROOM = "sglang.srt.mem_cache.allocation_sizing.get_req_to_token_extra_context_len"

TOUCHES = (
    Touch(
        "sglang.srt.speculative.spec_info:SpeculativeAlgorithm.create_worker",
        "hooked (around): DFLASH resolves to our worker",
        "SGLang lets a plug-in replace a built-in algorithm's worker",
        ("self", "server_args"),
    ),
    Touch(
        "sglang.srt.mem_cache.allocation_sizing:get_req_to_token_extra_context_len",
        "hooked (around): rows of the slot table hold the reserve of a request at the end of its context",
        "SGLang sizes the rows by the reserve at page size 1 too",
    ),
    Touch(
        "sglang.srt.mem_cache.allocation_sizing:get_alloc_reserve_per_decode",
        "slots that a request at the end of its context still reserves",
        "SGLang sizes the rows by the reserve at page size 1 too",
    ),
    Touch(
        "sglang.srt.mem_cache.allocation_sizing:get_alloc_page_size",
        "and the page that the reserve is rounded to",
        "SGLang sizes the rows by the reserve at page size 1 too",
    ),
    Touch("sglang.srt.platforms:current_platform", "is it the CPU platform of this package?", "never: public"),
    Touch(
        "sglang.srt.plugins.hook_registry:HookRegistry.register",
        "installs the hooks",
        "never: public",
        ("target", "hook", "hook_type"),
    ),
    Touch("sglang.srt.plugins.hook_registry:HookType", "how a hook is installed", "never: public"),
    Touch(
        "sglang.srt.plugins.hook_registry:HookRegistry.apply_hooks",
        "applies them at once, to check",
        "never: public",
    ),
)


def install() -> None:
    """Install every hook; under another SGLang version only what refuses DFLASH.

    On any failure print one line and end the process: SGLang logs and swallows a plug-in's exceptions and would
    then serve with its built-in worker.
    """
    try:
        version = require_version()
    except DFlashError as error:
        refuse_dflash(error)
        return
    try:
        _install(version)
    except DFlashError as error:
        end_process(str(error))
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        end_process(f"could not be installed: {cause} (report it; SGLANG_PLUGINS=none serves without it)")


def _install(version: str) -> None:
    from sglang.srt.platforms import current_platform
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    from sglang_dflash.host import widths
    from sglang_dflash.plugin import arguments, draft_config

    HookRegistry.register(CREATE_WORKER, _create_worker, HookType.AROUND)
    HookRegistry.register(ROW_HEADROOM, _row_headroom, HookType.AROUND)
    widths.install()
    arguments.install()
    draft_config.install()
    if current_platform.device_name == "sglang_dflash_cpu":
        from sglang_dflash.cpu.install import install as install_platform

        install_platform()
    HookRegistry.apply_hooks()
    missing = [target for target in HookRegistry._hooks if target not in HookRegistry._patched]
    if missing:
        raise DFlashError("sglang", f"hooks did not land on {', '.join(missing)}", "reinstall sglang==" + version)


def _row_headroom(original) -> int:
    """Columns past the context length: the last rounds of a full request reserve twice the verify width."""
    from sglang.srt.mem_cache.allocation_sizing import get_alloc_page_size, get_alloc_reserve_per_decode

    return max(original(), get_alloc_reserve_per_decode() + get_alloc_page_size())


def _create_worker(original, algorithm, server_args):
    """DFLASH -> our worker; another algorithm, the switch, or a draft variant of others -> the original."""
    if not algorithm.is_dflash():
        return original(algorithm, server_args)
    from sglang_dflash.options import Options

    options = Options.from_env()
    worker = _choose_worker(original, algorithm, server_args, options)
    if not options.counts:
        return worker
    from sglang_dflash.engine.counting import counted

    return counted(worker, options.counts)


def _choose_worker(original, algorithm, server_args, options) -> type:
    from sglang_dflash.plugin import draft_config, requests, stopping, weight_updates

    reason = _reason_for_builtin(server_args, options)
    if reason is not None:
        logger.info("sglang-dflash %s: DFLASH runs on SGLang's built-in worker: %s", __version__, reason)
        draft_config.run_builtin_drafts_on_a_host()
        return original(algorithm, server_args)
    from sglang_dflash.engine.worker import DFlashWorker

    logger.info(
        "sglang-dflash %s on SGLang %s: DFLASH runs on sglang_dflash.engine.DFlashWorker (pid %d)",
        __version__,
        require_version(),
        os.getpid(),
    )
    requests.install(_count_refusals())
    stopping.install()
    weight_updates.install()
    return DFlashWorker


def _count_refusals():
    """What counts refused requests for Prometheus; None where nobody serves metrics, and on other ranks than 0."""
    from sglang.srt.runtime_context import get_parallel

    from sglang_dflash.engine.observe.metrics import RefusalMetrics
    from sglang_dflash.host.metrics_api import metrics_label

    label = metrics_label()
    return None if label is None or get_parallel().tp_rank != 0 else RefusalMetrics(label)


def _reason_for_builtin(server_args, options) -> str | None:
    """Why the built-in worker has to serve this run, or None."""
    from sglang.srt.runtime_context import get_parallel

    from sglang_dflash.checkpoints.config import load_draft_config

    if options.worker == "builtin":
        return "SGLANG_DFLASH_WORKER=builtin"
    draft = load_draft_config(server_args.speculative_draft_model_path, server_args.speculative_draft_model_revision)
    if draft is not None and draft.unsupported_variant is not None:
        return f"draft variant {draft.unsupported_variant}"
    if get_parallel().attn_dp_enabled:
        return "data-parallel attention, whose idle ranks our worker does not serve yet"
    return None
