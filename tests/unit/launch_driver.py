"""Runs in a process of its own: parses, and where asked resolves, launch arguments with the plug-in loaded.

Reads JSON lists of {"argv", "environment", "resolve"} from stdin, one a line, and writes for each a JSON list of
{"fields", "error", "log"}, or null where it failed. Each list has a fork of its own; SGLang is imported once.
"""

import contextlib
import io
import json
import logging
import os
import sys
import traceback

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


def main() -> None:
    # Answers must not mix with what SGLang prints.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    load_plugins()
    import sglang.srt.server_args  # noqa: F401 - what every fork needs

    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _answer(line, answers)
        _, status = os.waitpid(pid, 0)
        if status:
            answers.write("null\n")


def _answer(line: str, answers) -> None:
    """Write the results of one list, and end the process."""
    status = 1
    try:
        results = [run(case) for case in json.loads(line)]
        answers.write(json.dumps(results, default=str) + "\n")
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
