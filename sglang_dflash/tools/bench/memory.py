"""Memory of a server's process tree."""

import re
import shutil
import subprocess
from pathlib import Path

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
    """Memory of the tree on NVIDIA GPUs now; None without nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    reply = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    return tree_gpu_bytes(reply, {process.pid for process in server.processes()})


def tree_gpu_bytes(reply: str, pids: set[int]) -> int:
    """Bytes that nvidia-smi's ``pid, MiB`` lines give to ``pids``."""
    rows = (line.split(",") for line in reply.splitlines() if line.count(",") == 1)
    return sum(int(used) << 20 for pid, used in rows if int(pid) in pids and used.strip().isdigit())
