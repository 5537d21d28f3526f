"""SGLang's GPU backends over our rounds, without a GPU.

The cases run in processes of their own: Triton's interpreter is a choice per process, and a launch of SGLang leaves
settings behind that belong to a process.
"""

import os
import pathlib
import subprocess
import sys

CASES = pathlib.Path(__file__).parent / "cases"


def run_cases(*files: str) -> None:
    """pytest over some of cases/; fails with its output."""
    environment = dict(os.environ, TRITON_INTERPRET="1", HF_HUB_OFFLINE="1")
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *(str(CASES / file) for file in files)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=800)
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]


def test_rounds_on_sglangs_gpu_backends():
    run_cases(*sorted(file.name for file in CASES.glob("test_*.py")))
