"""The NVIDIA GPUs of this machine, as their driver's library (NVML) describes them."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pynvml


class Gpu(NamedTuple):
    """One GPU."""

    name: str
    capability: str  # compute capability, "9.0"
    memory: int  # bytes


def nvidia_gpus() -> list[Gpu]:
    """Every GPU in the driver's order; none where no driver answers."""
    with _driver() as handles:
        return [
            Gpu(
                pynvml.nvmlDeviceGetName(handle),
                "{}.{}".format(*pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
                pynvml.nvmlDeviceGetMemoryInfo(handle).total,
            )
            for handle in handles
        ]


def memory_of_processes(pids: Collection[int]) -> int | None:
    """Bytes that the processes hold on all GPUs now; None without a GPU.

    A process whose memory the driver does not tell (in a container, for example) counts nothing.
    """
    with _driver() as handles:
        if not handles:
            return None
        running = [process for handle in handles for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]
        return sum(process.usedGpuMemory or 0 for process in running if process.pid in pids)


@contextmanager
def _driver() -> Iterator[list]:
    """Handles of the GPUs, while the library is open."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no library, or no driver
        yield []
        return
    try:
        yield [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()
