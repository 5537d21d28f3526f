"""The one exception that users see."""

import contextlib
import sys
from collections.abc import Iterator
from typing import NoReturn


class DFlashError(Exception):
    """A wrong input, named: which field, what is wrong with it, and what to do.

    ``str(error)`` is one line: ``<field>: <problem> (<remedy>)``.
    """

    def __init__(self, field: str, problem: str, remedy: str):
        super().__init__(f"{field}: {problem} ({remedy})")
        self.field = field
        self.problem = problem
        self.remedy = remedy


def end_process(reason: str) -> NoReturn:
    """Print one line and leave with status 2; passes through SGLang's ``except Exception``."""
    print(f"error: sglang-dflash: {reason}", file=sys.stderr, flush=True)
    raise SystemExit(2)


@contextlib.contextmanager
def print_errors() -> Iterator[None]:
    """Print a ``DFlashError``'s line before it travels on: SGLang would bury it in a traceback."""
    try:
        yield
    except DFlashError as error:
        print(f"error: sglang-dflash: {error}", file=sys.stderr, flush=True)
        raise
