"""A round in its CUDA form, on a CPU: the choices that workers make for a GPU, and what would launch or wait there.

Which tensor lies on the device cannot be read off a CPU's tensors, so those of the host are known by name (the
scheduler's lengths) and by descent: what is computed from host tensors alone lies on the host. All else is the
device's.
"""

import contextlib
from unittest import mock

import torch
from graphs import RerunGraphs
from torch.overrides import TorchFunctionMode
from triton.runtime.interpreter import InterpretedFunction

from sglang_dflash.engine.commit import inject
from sglang_dflash.engine.counting import RoundCounter, _tensors
from sglang_dflash.kernels import accept, compact_kv, dense, inject_kv, prepare_block, window_rows

_KERNELS = (accept, compact_kv, inject_kv, prepare_block, window_rows)
# Each makes the host wait for the device.
_WAITS = {"item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__", "nonzero", "__array__"}


@contextlib.contextmanager
def choices():
    """Scope in which our worker is built for CUDA: Triton's kernels, and every row injected."""
    with contextlib.ExitStack() as stack:
        for kernel in _KERNELS:
            choose = kernel.choose
            stack.enter_context(mock.patch.object(kernel, "choose", lambda _, choose=choose: choose("cuda")))
        choose_dense = dense.choose
        stack.enter_context(mock.patch.object(dense, "choose", lambda _, dtype: choose_dense("cuda", dtype)))
        stack.enter_context(mock.patch.object(inject, "committed_rows", inject.all_rows))
        yield


def choose_for_builtin(worker) -> None:
    """The same for SGLang's worker."""
    worker._use_triton_prepare_block = worker._use_triton_accept_bonus = worker._use_triton_compact_rebuild = True
    worker._use_fused_kv_materialize = True
    worker._init_fused_kv_helper()
    assert worker._use_fused_kv_materialize and worker._fused_kv_helper is not None


class CudaRound(RoundCounter):
    """Launches, by name, and waits of what runs in its scope. ``with CudaRound(host_tensors) as seen``."""

    def __init__(self, host):
        super().__init__("cpu")
        self.waits: list[str] = []
        self._host = {_memory(tensor) for tensor in host}
        self._kept = list(host)  # no other tensor may take the memory of one that is known
        self._paused = False
        self._scope = contextlib.ExitStack()

    @property
    def launches(self) -> dict[str, int]:
        """By operation, kernel, and "graph"."""
        return dict(self.operations.get(self.part, {}))

    @property
    def total(self) -> int:
        return sum(self.launches.values())

    def is_host(self, tensor: torch.Tensor) -> bool:
        return _memory(tensor) in self._host

    def __enter__(self):
        kernel, graph = InterpretedFunction.run, RerunGraphs.replay
        self._scope.enter_context(mock.patch.object(InterpretedFunction, "run", self._counted(_kernel_name, kernel)))
        self._scope.enter_context(mock.patch.object(RerunGraphs, "replay", self._counted(lambda *_: "graph", graph)))
        self._scope.enter_context(_Waits(self))
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._scope.close()

    def one_launch(self, owner, attribute: str, name: str) -> None:
        """Count a call of ``owner.attribute`` as what it is on a GPU."""
        run = getattr(owner, attribute)
        self._scope.enter_context(mock.patch.object(owner, attribute, self._counted(lambda *_: name, run)))

    def _counted(self, name, run):
        def counted(*args, **kwargs):
            self.launch(name(*args))
            with self.paused():
                return run(*args, **kwargs)

        return counted

    def launch(self, name: str) -> None:
        if not self._paused:
            self.operations.setdefault(self.part, {}).setdefault(name, 0)
            self.operations[self.part][name] += 1

    @contextlib.contextmanager
    def paused(self):
        """Scope of what is one launch, whatever it does here."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if self._paused:
            return func(*args, **(kwargs or {}))
        given = list(_tensors((args, kwargs or {})))
        if given and all(self.is_host(tensor) for tensor in given):
            out = func(*args, **(kwargs or {}))
            made = list(_tensors(out))
            self._host |= {_memory(tensor) for tensor in made}
            self._kept += made
            return out
        name = func._schema.name.split("::")[1]
        if name == "copy_" and not self.is_host(given[0]) and self.is_host(given[1]):
            self.waits.append("copy of the host's memory")
        out = super().__torch_dispatch__(func, types, args, kwargs)
        self._kept += list(_tensors(out))
        return out

    def _count(self, schema, given, made) -> None:
        before = self.counts.get(self.part, {}).get("syncs", 0)
        super()._count(schema, given, made)
        if self.counts[self.part]["syncs"] > before:
            self.waits.append(schema.name.split("::")[1])


class _Waits(TorchFunctionMode):
    """Calls that read a device's tensor on the host without an operation of their own."""

    def __init__(self, seen: CudaRound):
        super().__init__()
        self._seen = seen

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in _WAITS and not self._seen._paused and not self._seen.is_host(args[0]):
            self._seen.waits.append(name)
        return func(*args, **(kwargs or {}))


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _kernel_name(kernel, *_) -> str:
    return kernel.fn.__name__
