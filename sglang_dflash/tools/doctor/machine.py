"""The machine that would serve."""

from dataclasses import dataclass

import psutil

from sglang_dflash.checkpoints.catalogue.command import generation_of
from sglang_dflash.gpus import nvidia_gpus


@dataclass(frozen=True)
class Machine:
    """Its accelerators, or its main memory where there are none."""

    name: str
    count: int  # accelerators; 0: the CPU platform serves
    memory: int  # bytes, of one accelerator or of the machine
    generation: str | None = None

    @property
    def on_cpu(self) -> bool:
        """Whether the CPU platform serves."""
        return self.count == 0


def this_machine() -> Machine:
    """The machine that this runs on."""
    from sglang_dflash.cpu.activation import claims_machine

    if claims_machine():
        return Machine("CPU platform", 0, psutil.virtual_memory().total)
    gpus = nvidia_gpus()
    if not gpus:
        return Machine("accelerator of another maker", 1, 0)
    first = gpus[0]
    return Machine(first.name, len(gpus), first.memory, generation_of(first.capability))


def simulated(capability: str, gibibytes: float, count: int) -> Machine:
    """A machine with GPUs of a compute capability and memory."""
    return Machine(f"GPU of compute capability {capability}", count, int(gibibytes * 2**30), generation_of(capability))
