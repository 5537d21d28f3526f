"""Memory of a server's process tree."""

import re
from pathlib import Path

from sglang_dflash.gpus import memory_of_processes
from sglang_dflash.tools.serve import ServerProcess

_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)


def peak_bytes(server: ServerProcess) -> int:
    """Sum over the tree of each process's largest resident size (where the system keeps none: the largest sum seen)."""
    total = 0
    for process in server.processes():
        status = Path(f"/proc/{process.pid}/status")
        found = _PEAK.search(status.read_text()) if status.exists() else None
        if found is None:
            server.rss()
            return server.peak_rss
        total += 1024 * int(found.group(1))
    return total


def gpu_bytes(server: ServerProcess) -> int | None:
    """Memory of the tree on NVIDIA GPUs now; None without one."""
    return memory_of_processes({process.pid for process in server.processes()})
