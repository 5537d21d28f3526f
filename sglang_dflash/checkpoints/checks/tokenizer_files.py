"""Tokenizer files of a checkpoint folder: vocabulary, special ids, chat template. No tokenizer is built."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sglang_dflash.checkpoints.checks.mask import vocabulary_of
from sglang_dflash.checkpoints.config import read_json

_QUESTION = [{"role": "user", "content": "?"}]
_ENDS = ("eos_token_id", "bos_token_id")


@dataclass(frozen=True)
class Texts:
    """What a folder says about text."""

    vocabulary: Mapping[str, int] | None  # tokens, added ones included
    added: frozenset[int] = frozenset()  # ids of added tokens: markers, not text
    ends: Mapping[int, str] = field(default_factory=dict)  # ids that begin or end a text, by role
    chat_template: str | None = None

    def token(self, number: int) -> str | None:
        """The token with an id, None where the vocabulary has none."""
        return next((token for token, i in (self.vocabulary or {}).items() if i == number), None)


def read_texts(folder: Path) -> Texts:
    """Read the tokenizer files of a folder, those that are there.

    Raises:
        DFlashError: one of them is not valid json.
    """
    path = folder / "tokenizer.json"
    tokenizer = read_json(path, "tokenizer") if path.is_file() else {}
    added = frozenset(token["id"] for token in tokenizer.get("added_tokens", ()))
    return Texts(vocabulary_of(tokenizer), added, _ends(folder), _chat_template(folder))


def thinking_default(template: str) -> str | None:
    """ "on" or "off": what a chat template does when not asked; None where it has no such switch.

    The template is rendered as transformers does, sandboxed, with and without its usual variable.
    """
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def stop(message):
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = stop
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    try:
        whole = environment.from_string(template)
        rendered = [
            whole.render(messages=_QUESTION, add_generation_prompt=True, **asked)
            for asked in ({}, {"enable_thinking": True}, {"enable_thinking": False})
        ]
    except (jinja2.TemplateError, TypeError, ValueError):
        # A template that wants more than a question (tools, a date) tells nothing here.
        return None
    default, on, off = rendered
    return None if on == off else "on" if default == on else "off" if default == off else None


def _ends(folder: Path) -> dict[int, str]:
    ends: dict[int, str] = {}
    for name in ("config.json", "generation_config.json"):
        if not (folder / name).is_file():
            continue
        raw = read_json(folder / name, name)
        for part in (raw.get("text_config") or {}, raw):
            for role in _ENDS:
                ends |= {number: role for number in _numbers(part.get(role))}
    return ends


def _numbers(value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [number for number in values if isinstance(number, int)]


def _chat_template(folder: Path) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text()
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            value = read_json(folder / name, name).get("chat_template")
            if isinstance(value, list):  # several templates: the one for chats
                value = next((each.get("template") for each in value if each.get("name") == "default"), None)
            if value:
                return value
    return None
