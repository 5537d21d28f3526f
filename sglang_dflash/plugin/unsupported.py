"""Another SGLang than this package is written for: servers without DFLASH go on as if it were not installed."""

import logging
import multiprocessing
import pkgutil
import sys
from collections.abc import Sequence

from sglang_dflash.errors import DFlashError, end_process, print_errors
from sglang_dflash.host.contract import Touch

logger = logging.getLogger(__name__)

CREATE_WORKER = "sglang.srt.speculative.spec_info.SpeculativeAlgorithm.create_worker"

_OTHERS = "never: any SGLang may be installed"
TOUCHES = (
    Touch(
        "sglang.srt.speculative.spec_info:SpeculativeAlgorithm.create_worker",
        "hooked (around) under other versions: DFLASH ends with the version's error",
        _OTHERS,
        ("self", "server_args"),
    ),
    Touch(
        "sglang.srt.arg_groups.resolution_hooks:register_resolution_hook",
        "wraps handle_speculative_decoding under other versions, for the same",
        _OTHERS,
        ("name",),
    ),
)


def refuse_dflash(error: DFlashError) -> None:
    """Warn once, and have every server that asks for DFLASH end with ``error``.

    Nothing is known of the installed version, so each way to notice is tried: the command line, the resolution of
    arguments, the choice of the worker.
    """
    if asks_for_dflash(sys.argv[1:]):
        end_process(str(error))
    noticed = [_refuse_at_resolution(error), _refuse_worker(error)]
    if multiprocessing.parent_process() is None:
        effect = "does not start" if any(noticed) else "would run on SGLang's own worker"
        logger.warning("sglang-dflash is not active, and a server with DFLASH %s: %s", effect, error)


def asks_for_dflash(argv: Sequence[str]) -> bool:
    """Whether a command line chooses DFLASH."""
    for word, following in zip(argv, [*argv[1:], ""], strict=False):
        flag, _, value = word.partition("=")
        if flag.startswith("--speculative-algo") and (value or following).upper() == "DFLASH":
            return True
    return False


def _refuse_at_resolution(error: DFlashError) -> bool:
    def check(server_args, previous) -> None:
        if str(getattr(server_args, "speculative_algorithm", None)).upper() == "DFLASH":
            raise error
        previous(server_args)

    try:
        from sglang.srt.arg_groups.resolution_hooks import register_resolution_hook

        register_resolution_hook("handle_speculative_decoding")(check)
    except Exception:  # whatever another version does instead
        return False
    return True


def _refuse_worker(error: DFlashError) -> bool:
    @print_errors()
    def refuse(original, algorithm, *args, **kwargs):
        if algorithm.is_dflash():
            raise error
        return original(algorithm, *args, **kwargs)

    try:
        from sglang.srt.plugins.hook_registry import HookRegistry, HookType

        pkgutil.resolve_name(CREATE_WORKER)
        HookRegistry.register(CREATE_WORKER, refuse, HookType.AROUND)
        HookRegistry.apply_hooks()
        return CREATE_WORKER in HookRegistry._patched
    except Exception:
        return False
