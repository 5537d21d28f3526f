"""CPU settings that must be there before python starts: restart once with them."""

from __future__ import annotations

import os
import sys

# glibc gives every large tensor back to the kernel; keeping the pages halves a step's time.
_MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "500000000",
}


def restart_with_fast_malloc(arguments: list[str], threads: int) -> None:
    """Replace this process by itself with malloc and thread settings, unless they are set already."""
    wanted = {**_MALLOC, "OMP_NUM_THREADS": str(threads)}
    missing = {k: v for k, v in wanted.items() if k not in os.environ}
    if missing and sys.platform == "linux":
        command = [sys.executable, "-m", "sglang_dflash.tools.train", *arguments]
        os.execve(sys.executable, command, {**os.environ, **missing})
