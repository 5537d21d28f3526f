"""Typed reads of a ``config.json``: what is missing or of the wrong kind is named."""

from collections.abc import Mapping
from typing import Any

from sglang_dflash.errors import DFlashError

FIX = "fix the draft's config.json"


class Fields:
    """The three places where a draft's ``config.json`` keeps its fields.

    ``own``: ``dflash_config``, DFlash's fields of the second generation. ``text``: ``text_config``, or the top
    level. ``raw``: the top level.
    """

    def __init__(self, raw: Mapping[str, Any]):
        self.raw = raw
        self.own = nested(raw, "dflash_config")
        self.text = nested(raw, "text_config") or raw

    def first(self, key: str) -> Any:
        """DFlash's own field: nested, else at the top level; None where neither has it."""
        value = self.own.get(key)
        return self.raw.get(key) if value is None else value

    def flag(self, key: str) -> bool | None:
        """DFlash's own switch; None where it is not given."""
        value = self.first(key)
        if value is not None and not isinstance(value, bool):
            raise DFlashError(f"draft {key}", f"is {value!r}, not true or false", FIX)
        return value

    def integer(self, key: str, default: int | None = None, minimum: int = 1) -> int:
        """A field of the layers, of which ``default`` takes the place; required without one."""
        value = optional_integer(key, self.text.get(key), minimum)
        value = default if value is None else value
        if value is None:
            raise DFlashError(f"draft {key}", "is missing", FIX)
        return value

    def own_integer(self, key: str, minimum: int = 1) -> int | None:
        """DFlash's own number, None where it is not given."""
        return optional_integer(key, self.first(key), minimum)

    def number(self, key: str, default: float) -> float:
        """A positive number of the layers."""
        return positive(key, self.text.get(key), default)

    def own_number(self, key: str, default: float) -> float:
        """A positive number of DFlash's own."""
        return positive(key, self.first(key), default)


def nested(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object under ``key``, empty where there is none."""
    value = raw.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise DFlashError(f"draft {key}", f"is {value!r}, not an object", FIX)
    return value


def is_integer(value: Any) -> bool:
    """True for whole numbers, of which json's true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def optional_integer(key: str, value: Any, minimum: int = 1) -> int | None:
    """``value`` where it is an integer of at least ``minimum`` or None."""
    if value is not None and (not is_integer(value) or value < minimum):
        raise DFlashError(f"draft {key}", f"is {value!r}, not an integer of at least {minimum}", FIX)
    return value


def positive(key: str, value: Any, default: float) -> float:
    """``value`` as a float, ``default`` for None."""
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise DFlashError(f"draft {key}", f"is {value!r}, not a positive number", FIX)
    return float(value)


def integers(key: str, value: Any) -> tuple[int, ...]:
    """A list of whole numbers that is not empty."""
    if not isinstance(value, (list, tuple)) or not value or not all(is_integer(i) for i in value):
        raise DFlashError(f"draft {key}", f"are {value!r}, not a list of integers", FIX)
    return tuple(value)
