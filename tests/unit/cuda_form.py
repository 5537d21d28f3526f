"""What a call would launch on a CUDA device, counted without one: tensors there have shapes and no memory."""

from collections import Counter
from contextlib import contextmanager
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

CUDA = torch.device("cuda", 0)
_EMPTY = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


class Launches(TorchDispatchMode):
    """``names``: launches by operation or kernel; ``pageable``: copies to the device from memory that is not pinned."""

    def __init__(self, mode: FakeTensorMode):
        super().__init__()
        self._mode = mode
        self.names: Counter[str] = Counter()
        self.pageable: list[str] = []
        self._pinned: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        pinned = kwargs.pop("pin_memory", False)  # only a CUDA host can
        given = tensors((args, kwargs))
        out = self._call(func, args, kwargs, any(isinstance(tensor, FakeTensor) for tensor in given))
        made = tensors(out)
        if pinned:
            self._pinned |= {memory(tensor) for tensor in made}
        if any(tensor.is_cuda for tensor in given + made):
            self._count(func._schema, given, made)
        return out

    def _call(self, func, args, kwargs, on_device: bool):
        """Host tensors are real, and their values count; what meets the device is not."""
        if not on_device and torch.device(kwargs.get("device") or "cpu").type == "cpu":
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        args, kwargs = tree_map_only(torch.Tensor, self._fake, (args, kwargs))
        return func(*args, **kwargs)

    def _fake(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if isinstance(tensor, FakeTensor) else self._mode.from_tensor(tensor)

    def _count(self, schema, given: list[torch.Tensor], made: list[torch.Tensor]) -> None:
        name = schema.name.split("::")[1]
        held = {memory(tensor) for tensor in given}
        view = all(memory(tensor) in held for tensor in made)
        writes = any(a.alias_info and a.alias_info.is_write for a in schema.arguments)
        if (view and not writes) or name in _EMPTY:
            return
        self.names[name] += 1
        if any(not tensor.is_cuda and tensor.dim() and memory(tensor) not in self._pinned for tensor in given):
            self.pageable.append(name)

    @property
    def total(self) -> int:
        return self.names.total()


def tensors(value) -> list[torch.Tensor]:
    """All tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for item in items for tensor in tensors(item)]


def memory(tensor: torch.Tensor) -> int:
    """Which memory a tensor lies in."""
    return tensor.untyped_storage()._cdata


@contextmanager
def cuda_form():
    """Inside, tensors are made on ``CUDA`` and Triton's kernels are counted instead of launched."""
    from triton.runtime.jit import JITFunction

    def launched(kernel, *args, grid, warmup, **kwargs):
        launches.names[kernel.fn.__name__] += 1

    mode = FakeTensorMode()
    launches = Launches(mode)
    with mode, mock.patch.object(JITFunction, "run", launched), torch.no_grad(), launches:
        yield launches
