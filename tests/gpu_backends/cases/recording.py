"""What reaches the models: the forward batch, its spec_info and the attention backend's metadata, pass by pass."""

import dataclasses
import functools
from enum import Enum

import torch

_PLAIN = (int, float, bool, str, type(None), Enum)


class Recorder:
    """Writes down every pass of a world's models while a worker runs."""

    def __init__(self, world):
        self.passes: list[dict] = []
        for part, runner in world.runners.items():
            self._watch(runner, "target" if part == "target" else "draft")

    def _watch(self, runner, part: str) -> None:
        forward = runner.model.forward

        @functools.wraps(forward)
        def watched(input_ids, positions, forward_batch, *args, **kwargs):
            self.passes.append(
                {
                    "part": part,
                    "given": plain({"input_ids": input_ids, "positions": positions}),
                    "batch": fields(forward_batch),
                    "spec": fields(forward_batch.spec_info),
                    "metadata": fields(runner.attn_backend.forward_metadata),
                }
            )
            return forward(input_ids, positions, forward_batch, *args, **kwargs)

        runner.model.forward = watched


def fields(value) -> dict:
    """Name -> plain value of an object's fields; others than tensors, numbers and lists of them by their type."""
    if value is None:
        return {}
    names = [item.name for item in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else vars(value)
    return {name: plain(getattr(value, name, None)) for name in names if not name.startswith("_")}


def plain(value):
    """A copy that later rounds cannot change."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return f"<{type(value).__name__}>"


def differences(ours, theirs, path: str = "") -> list[str]:
    """Paths at which two plain values differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = []
        for name in sorted(ours.keys() | theirs.keys()):
            found += differences(ours.get(name), theirs.get(name), f"{path}.{name}" if path else name)
        return found
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [
            line for i, pair in enumerate(zip(ours, theirs, strict=True)) for line in differences(*pair, f"{path}[{i}]")
        ]
    if isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor):
        same = ours.dtype == theirs.dtype and ours.shape == theirs.shape and bool((ours == theirs).all())
        return [] if same else [path]
    same = type(ours) is type(theirs) and not isinstance(ours, torch.Tensor) and ours == theirs
    return [] if same else [path]
