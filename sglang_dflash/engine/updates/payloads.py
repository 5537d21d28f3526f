"""The two forms in which tensors are pushed: a list of pairs, and one flat tensor with a table."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

Payload = list[tuple[str, Any]] | dict[str, Any]


def addressed(payload: Payload, own_name: Callable[[str], str | None]) -> Payload | None:
    """The part of ``payload`` for which ``own_name`` answers, under those names; None where that is nothing."""
    if isinstance(payload, dict):
        rows = [(own_name(row.name), row) for row in payload["metadata"]]
        kept = [SimpleNamespace(**{**vars(row), "name": name}) for name, row in rows if name is not None]
        return {**payload, "metadata": kept} if kept else None
    pairs = [(own_name(name), tensor) for name, tensor in payload]
    return [(name, tensor) for name, tensor in pairs if name is not None] or None


def names_of(payload: Payload) -> list[str]:
    """The names of its tensors."""
    if isinstance(payload, dict):
        return [row.name for row in payload["metadata"]]
    return [name for name, _ in payload]
