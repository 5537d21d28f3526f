"""The machine that would serve."""

import subprocess
from dataclasses import dataclass

import psutil

from sglang_dflash.checkpoints.catalogue.command import generation_of

_QUERY = ("nvidia-smi", "--query-gpu=name,compute_cap,memory.total", "--format=csv,noheader,nounits")


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
    from sglang_dflash.cpu.activation import wanted

    if wanted():
        return Machine("CPU platform", 0, psutil.virtual_memory().total)
    try:
        done = subprocess.run(_QUERY, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return Machine("accelerator of another maker", 1, 0)
    rows = [line.split(", ") for line in done.stdout.splitlines() if line.count(", ") == 2]
    if not rows:
        return Machine("accelerator of another maker", 1, 0)
    name, capability, mebibytes = rows[0]
    return Machine(name, len(rows), int(mebibytes) << 20, generation_of(capability))


def imagined(capability: str, gibibytes: float, count: int) -> Machine:
    """A machine with GPUs of a compute capability and memory."""
    return Machine(f"GPU of compute capability {capability}", count, int(gibibytes * 2**30), generation_of(capability))
