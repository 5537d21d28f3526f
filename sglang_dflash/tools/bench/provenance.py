"""Where figures come from: versions, commit, machine, command lines, settings."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil

import sglang_dflash
from sglang_dflash.gpus import nvidia_gpus

PACKAGES = ("sglang", "torch", "transformers", "triton")
SETTINGS = ("OMP_NUM_THREADS", "SGLANG_DFLASH_PLATFORM", "CUDA_VISIBLE_DEVICES")


def versions() -> dict[str, str | None]:
    """Of this package, Python and what serving rests on; None where not installed."""
    found = {"sglang_dflash": sglang_dflash.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def git_commit() -> str | None:
    """The commit this package is run from, ``+`` where files differ from it; None outside a checkout."""
    folder = Path(__file__).parent
    if _git(folder, "ls-files", "--error-unmatch", __file__) is None:
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+" if changed else commit


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def machine() -> dict:
    """Processor, cores, memory, accelerators, and how busy the machine is with other work."""
    return {
        "cpu": _cpu_name(),
        "cores": psutil.cpu_count(logical=False),
        "threads": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": [f"{gpu.name}, {gpu.memory >> 20} MiB" for gpu in nvidia_gpus()],
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def provenance() -> dict:
    """Everything above, with the time and this process's command line."""
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "argv": sys.argv,
        "versions": versions(),
        "commit": git_commit(),
        "machine": machine(),
        "environment": {name: os.environ.get(name) for name in SETTINGS},
    }
