"""Counts what a decode round does, for our worker and the built-in one alike; off unless asked for.

With ``SGLANG_DFLASH_COUNTS`` naming a file, every decode round appends a JSON line
``{"bs": 4, "parts": {"target": counts, "draft": counts, "worker": counts}, "operations": {"target": {}}}``,
counts being ``{"launches": ..., "allocations": ..., "copies": ..., "syncs": ...}``.
Operations are counted where torch dispatches them: on an accelerator each is a kernel launch. On a CPU, those
on the scheduler's own host tensors are counted too: there they look like any other.
"""

import json
from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Operations that make the host wait for a value of the device.
_SYNCS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique_dim", "_unique2"}
_INDEXING = {"index", "index_put_", "_index_put_impl_"}
# Under inference mode torch does not break reshape and its like down: they copy where they return no view.
_COPIES = {"copy_", "_to_copy", "clone", "contiguous", "reshape", "to"}
_EMPTY = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


class RoundCounter(TorchDispatchMode):
    """Counts the operations on tensors of one device type, by the part of the round that runs.

    ``counts`` and ``operations`` are part -> name -> number, the latter by torch's names of launches.
    """

    def __init__(self, device_type: str):
        super().__init__()
        self.part = "worker"
        self.counts: dict[str, Counter] = {}
        self.operations: dict[str, Counter] = {}
        self._device_type = device_type

    def clear(self) -> None:
        """Begin a new round."""
        self.counts.clear()
        self.operations.clear()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given, made = list(_tensors((args, kwargs or {}))), list(_tensors(out))
        if any(tensor.device.type == self._device_type for tensor in given + made):
            self._count(func._schema, given, made)
        return out

    def _count(self, schema, given: list[torch.Tensor], made: list[torch.Tensor]) -> None:
        name = schema.name.split("::")[1]
        counter = self.counts.setdefault(self.part, Counter())
        storages = {tensor.untyped_storage().data_ptr() for tensor in given}
        fresh = [t for t in made if t.untyped_storage().data_ptr() not in storages]
        counter["allocations"] += len(fresh)
        # A mask as an index is turned into row numbers, whose count the host must know.
        by_mask = name in _INDEXING and any(tensor.dtype == torch.bool for tensor in given[1:])
        counter["syncs"] += name in _SYNCS or by_mask
        # A view computes nothing; an empty tensor is an allocation only.
        view = not fresh and not any(a.alias_info and a.alias_info.is_write for a in schema.arguments)
        counter["copies"] += name in _COPIES and not view
        if not view and name not in _EMPTY:
            counter["launches"] += 1
            self.operations.setdefault(self.part, Counter())[name] += 1


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
            self._counter = RoundCounter(torch.device(self.target_worker.model_runner.device).type)
            self._counts_file = open(path, "a", buffering=1)
            _label(self._counter, self.target_worker.model_runner, "target")
            _label(self._counter, self.draft_worker.model_runner, "draft")

        def forward_batch_generation(self, batch, *args, **kwargs):
            if not batch.forward_mode.is_decode():
                return super().forward_batch_generation(batch, *args, **kwargs)
            bs = len(batch.reqs)
            self._counter.clear()
            with self._counter:
                result = super().forward_batch_generation(batch, *args, **kwargs)
            row = {"bs": bs, "parts": self._counter.counts, "operations": self._counter.operations}
            self._counts_file.write(json.dumps(row) + "\n")
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
