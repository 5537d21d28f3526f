"""Counts what a decode round does, for our worker and the built-in one alike; off unless asked for.

With ``SGLANG_DFLASH_COUNTS`` naming a file, every decode round appends a JSON line
``{"bs": 4, "parts": {"target": {"launches": ..., "allocations": ..., "copies": ..., "syncs": ...}, "draft": ..., "worker": ...}}``.
Operations are counted where torch dispatches them: on an accelerator each is a kernel launch.
"""

import json
from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Operations that make the host wait for a value of the device.
_SYNCS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique_dim", "_unique2"}
_COPIES = {"copy_", "_to_copy", "clone", "contiguous"}
_EMPTY = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


class RoundCounter(TorchDispatchMode):
    """Counts operations, by the part of the round that is running."""

    def __init__(self):
        super().__init__()
        self.part = "worker"
        self.counts: dict[str, Counter] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        counter = self.counts.setdefault(self.part, Counter())
        inputs = {id(t.untyped_storage()) for t in _tensors((args, kwargs or {}))}
        fresh = [t for t in _tensors(out) if id(t.untyped_storage()) not in inputs]
        counter["allocations"] += len(fresh)
        counter["syncs"] += name in _SYNCS
        counter["copies"] += name in _COPIES
        # A view computes nothing; an empty tensor is an allocation only.
        view = not fresh and not any(a.alias_info and a.alias_info.is_write for a in func._schema.arguments)
        counter["launches"] += not (view or name in _EMPTY)
        return out


def _tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def counted(worker_class: type, path: str) -> type:
    """A subclass of ``worker_class`` that appends the counts of every decode round to ``path``."""

    class CountedWorker(worker_class):
        def __init__(self, **arguments):
            super().__init__(**arguments)
            self._counter = RoundCounter()
            self._counts_file = open(path, "a", buffering=1)
            _label(self._counter, self.target_worker.model_runner, "target")
            _label(self._counter, self.draft_worker.model_runner, "draft")

        def forward_batch_generation(self, batch, *args, **kwargs):
            if not batch.forward_mode.is_decode():
                return super().forward_batch_generation(batch, *args, **kwargs)
            bs = len(batch.reqs)
            self._counter.counts.clear()
            with self._counter:
                result = super().forward_batch_generation(batch, *args, **kwargs)
            self._counts_file.write(json.dumps({"bs": bs, "parts": self._counter.counts}) + "\n")
            return result

    CountedWorker.__name__ = worker_class.__name__
    return CountedWorker


def _label(counter: RoundCounter, runner, part: str) -> None:
    forward = runner.forward

    def labelled(*args, **kwargs):
        before, counter.part = counter.part, part
        try:
            return forward(*args, **kwargs)
        finally:
            counter.part = before

    runner.forward = labelled
