"""Launch flags: spellings that SGLang renamed are accepted by its own parser, and errors are one line."""

import argparse
import functools
import inspect
import logging
import sys
from typing import Any, NamedTuple

from sglang_dflash.errors import DFlashError
from sglang_dflash.host.contract import Touch
from sglang_dflash.plugin import resolution

logger = logging.getLogger(__name__)

ADD_CLI_ARGS = "sglang.srt.server_args.ServerArgs.add_cli_args"
FROM_CLI_ARGS = "sglang.srt.server_args.ServerArgs.from_cli_args"

TOUCHES = (
    Touch(
        "sglang.srt.server_args:ServerArgs.add_cli_args",
        "hooked (after): adds the flags' old spellings to SGLang's parser",
        "published launch commands no longer use them",
        ("parser",),
    ),
    Touch(
        "sglang.srt.server_args:ServerArgs.from_cli_args",
        "hooked (before): moves the values of old spellings to today's fields",
        "published launch commands no longer use them",
        ("args",),
    ),
    Touch(
        "sglang.srt.server_args:ServerArgs",
        "fields behind the renamed flags",
        "published launch commands no longer use them",
        (
            "speculative_draft_window_size",
            "mamba_radix_cache_strategy",
            "cuda_graph_max_bs_decode",
            "cuda_graph_bs_decode",
        ),
    ),
)


class Renamed(NamedTuple):
    """A flag that published commands spell differently from the installed SGLang."""

    old: str
    new: str

    @property
    def field(self) -> str:
        """Field of ServerArgs that holds the value."""
        return self.new.lstrip("-").replace("-", "_")

    @property
    def holder(self) -> str:
        """Where a parsed namespace keeps the old spelling's value until it is moved."""
        return f"_old_spelling_of_{self.field}"


RENAMED = (
    Renamed("--speculative-dflash-draft-window-size", "--speculative-draft-window-size"),
    Renamed("--mamba-scheduler-strategy", "--mamba-radix-cache-strategy"),
    Renamed("--cuda-graph-max-bs", "--cuda-graph-max-bs-decode"),
    Renamed("--cuda-graph-bs", "--cuda-graph-bs-decode"),
)

# (flag, published value that SGLang has removed) -> the value that does its work now.
SUCCESSORS = {("--cuda-graph-backend-prefill", "tc_piecewise"): "breakable"}


def install() -> None:
    """Register the hooks on SGLang's parser and on its resolution of arguments; once per process."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register(ADD_CLI_ARGS, _add_old_spellings, HookType.AFTER)
    HookRegistry.register(FROM_CLI_ARGS, _move_old_values, HookType.BEFORE)
    resolution.install()
    sys.excepthook = functools.partial(_report_in_one_line, sys.excepthook)


def _add_old_spellings(_result, parser: argparse.ArgumentParser) -> None:
    actions: dict[str, Any] = {option: action for action in parser._actions for option in action.option_strings}
    for flag in RENAMED:
        today = actions[flag.new]
        parser.add_argument(
            flag.old,
            dest=flag.holder,
            default=argparse.SUPPRESS,
            type=today.type,
            nargs=today.nargs,
            choices=today.choices,
            help=f"Old spelling of {flag.new}, accepted by sglang-dflash.",
        )
    for (option, removed), successor in SUCCESSORS.items():
        action = actions[option]
        action.type = functools.partial(_parse_with_successor, action.type, option, removed, successor)


def _parse_with_successor(parse, option: str, removed: str, successor: str, text: str):
    if text != removed:
        return parse(text)
    # Logging is not set up while arguments are parsed: a warning reaches the terminal all the same.
    logger.warning("sglang-dflash: %s %s no longer exists in this SGLang; %s is used", option, removed, successor)
    return parse(successor)


def _move_old_values(_cls, args: argparse.Namespace) -> None:
    from sglang.srt.server_args import ServerArgs

    fields = inspect.signature(ServerArgs).parameters
    for flag in RENAMED:
        if not hasattr(args, flag.holder):
            continue
        value = getattr(args, flag.holder)
        today = getattr(args, flag.field)
        if today not in (fields[flag.field].default, value):
            raise DFlashError(flag.old, f"is {value}, but its new spelling {flag.new} is {today}", "give one of them")
        setattr(args, flag.field, value)
        logger.info("sglang-dflash: %s is spelled %s in this SGLang; %s is used", flag.old, flag.new, value)


def _report_in_one_line(previous, kind, error, trace) -> None:
    """Uncaught errors of ours are for users: one line; the exit status stays nonzero."""
    if isinstance(error, DFlashError):
        print(f"error: sglang-dflash: {error}", file=sys.stderr, flush=True)
    else:
        previous(kind, error, trace)
