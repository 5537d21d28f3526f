"""Runs in a process of its own: parses, and where asked resolves, launch arguments with the plug-in loaded.

Reads one JSON list of {"argv", "environment", "resolve"} from stdin; writes one JSON list of
{"fields", "error", "log"} as the last line of stdout.
"""

import contextlib
import io
import json
import logging
import os
import sys

from sglang.srt.plugins import load_plugins

from sglang_dflash.errors import DFlashError


class Lines(logging.Handler):
    """Keeps what the plug-in logs."""

    def __init__(self):
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def run(case: dict) -> dict:
    """Outcome of one case; ``fields`` are the arguments, resolved where asked."""
    from sglang.srt.arg_groups.overrides import resolving_view
    from sglang.srt.server_args import ServerArgs, prepare_server_args

    handler = Lines()
    ours = logging.getLogger("sglang_dflash")
    ours.addHandler(handler)
    os.environ.update(case["environment"])
    fields, error, stderr = None, None, io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            arguments = prepare_server_args(case["argv"])
            ours.setLevel(logging.INFO)
            if case["resolve"]:
                arguments.resolve_once()
        view = resolving_view(arguments) if case["resolve"] else arguments
        fields = {name: getattr(view, name) for name in ServerArgs.__struct_fields__}
    except (DFlashError, ValueError) as caught:
        error = f"{type(caught).__name__}: {caught}"
    except SystemExit:
        error = stderr.getvalue().strip().splitlines()[-1]
    finally:
        ours.removeHandler(handler)
        for name in case["environment"]:
            del os.environ[name]
    return {"fields": fields, "error": error, "log": handler.lines}


if __name__ == "__main__":
    cases = json.load(sys.stdin)
    load_plugins()
    results = [run(case) for case in cases]
    print(json.dumps(results, default=str))
