"""``launch/<name>.sh``: the command of an entry, readable, overridable by environment and arguments."""

import shlex
import textwrap

from sglang_dflash.checkpoints.catalogue.command import QUERY, backends, fixed
from sglang_dflash.checkpoints.catalogue.entries import GENERATIONS, Entry
from sglang_dflash.checkpoints.catalogue.phrases import block_words, draft_words, mode_words, published_words

REGENERATE = "python -m sglang_dflash.checkpoints.catalogue"
WIDTH = 118
# flag -> environment variable that overrides it, or sets it where the entry leaves it to SGLang
_OVERRIDES = {
    "--speculative-num-draft-tokens": ("BLOCK_SIZE", "block_size"),
    "--tp-size": ("TP", "tp"),
    "--context-length": ("CONTEXT", "context_length"),
    "--mem-fraction-static": ("MEMORY", "memory_fraction"),
}
_BY_GPU = {
    "--attention-backend": ("ATTENTION", "target"),
    "--speculative-draft-attention-backend": ("DRAFT_ATTENTION", "draft"),
    "--page-size": ("PAGE_SIZE", "page"),
}
_HEAD = """\
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[[ -x $python ]] || python=python3
"""
_TAIL = """\
if [[ -n ${DRY_RUN:-} ]]; then printf '%q ' "${command[@]}"; echo; else exec "${command[@]}"; fi
"""


def script(entry: Entry) -> str:
    """The whole text of an entry's script."""
    parts = ["#!/usr/bin/env bash", *_comments(entry), _HEAD + _environment(entry), _backends(entry)]
    return "\n".join([*parts, *_command(entry), _TAIL])


def _comments(entry: Entry) -> list[str]:
    rows = [
        ("target", f"{entry.checkpoint} ({mode_words(entry)})"),
        ("draft", f"{draft_words(entry.draft)}, {block_words(entry)}"),
        ("hardware", entry.hardware),
        ("published", published_words(entry)),
        ("measured", "not yet measured (bench: sglang-dflash bench)"),
    ]
    if entry.draft.window:
        rows.append(("long text", f"add --speculative-draft-window-size {entry.draft.window}"))
    rows += [("note", note) for note in entry.notes]
    lines = [f"# {entry.title} with its published draft. Made from the catalogue: {REGENERATE}"]
    for label, text in rows:
        lines += textwrap.wrap(text, WIDTH, initial_indent=f"#   {label:<11}", subsequent_indent="#" + " " * 14)
    names = [variable for variable, _ in (*_OVERRIDES.values(), *_BY_GPU.values())]
    about = (
        f"Environment: MODEL DRAFT {' '.join(names)} HOST PORT PYTHON, GPU (compute capability, such as 9.0), "
        "DRY_RUN=1 prints the command; arguments are passed on."
    )
    return lines + textwrap.wrap(about, WIDTH, initial_indent="# ", subsequent_indent="# ")


def _environment(entry: Entry) -> str:
    return "".join(f"export {name}=${{{name}:-{value}}}\n" for name, value in entry.environment.items())


def _backends(entry: Entry) -> str:
    """Sets $target, $draft and $page by GPU generation."""
    rows = [
        (f"{number}.*", entry.attention.rows[name])
        for name, number in GENERATIONS.items()
        if name in entry.attention.rows
    ]
    rows.append(("*", entry.attention.on(None)))
    texts = [f"target={row.target} draft={row.draft} page={row.page}" for _, row in rows]
    if len(rows) == 1:
        return texts[0] + "\n"
    cases = [f"  {pattern + ')':<6} {text} ;;" for (pattern, _), text in zip(rows, texts, strict=True)]
    head = f"case ${{GPU:-$({' '.join(QUERY)} 2>/dev/null | head -n 1)}} in"
    return "\n".join([head, *cases, "esac\n"])


def _command(entry: Entry) -> list[str]:
    words = [_with_default(flag, variable, getattr(entry, name)) for flag, (variable, name) in _OVERRIDES.items()]
    chosen = [flag for flag, _ in backends(entry, None)]
    for flag, (variable, name) in _BY_GPU.items():
        given = f'{flag} "${{{variable}:-${name}}}"'
        words.append(given if flag in chosen else _if_set(flag, variable))
    words += [flag if value is True else f"{flag} {value}" for flag, value in fixed(entry)]
    extra = shlex.join(entry.flags).replace(" --", "\n--").splitlines()
    lines = textwrap.wrap(
        " ".join(word.replace(" ", "\0") for word in words + extra), WIDTH - 2, break_on_hyphens=False
    )
    return [
        'command=("$python" -m sglang.launch_server',
        f'  --model-path "${{MODEL:-{entry.checkpoint}}}"',
        "  --speculative-algorithm DFLASH",
        f'  --speculative-draft-model-path "${{DRAFT:-{entry.draft.checkpoint}}}"',
        *(f"  {line}".replace("\0", " ") for line in lines),
        '  --host "${HOST:-127.0.0.1}" --port "${PORT:-30000}" "$@")',
    ]


def _with_default(flag: str, variable: str, value) -> str:
    return _if_set(flag, variable) if value is None else f'{flag} "${{{variable}:-{value}}}"'


def _if_set(flag: str, variable: str) -> str:
    return f'${{{variable}:+{flag} "${variable}"}}'
