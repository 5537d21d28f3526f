"""Runs the Triton cases in processes of their own: Triton's interpreter is a choice per process."""

import os
import pathlib
import subprocess
import sys

import pytest
import torch

HERE = pathlib.Path(__file__).parent


def run_cases(file: str, device: str, interpret: bool, **variables: str) -> None:
    """pytest over triton_cases/<file> with Triton interpreted or compiled; fails with its output."""
    environment = dict(os.environ, SGLANG_DFLASH_KERNEL_CASES=device, **variables)
    environment.pop("TRITON_INTERPRET", None)
    if interpret:
        environment["TRITON_INTERPRET"] = "1"
    cases = str(HERE / "triton_cases" / file)
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", cases]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=800)
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]


def test_kernels_equal_their_twins_in_the_interpreter():
    run_cases("test_cases.py", "cpu", interpret=True)


def test_linear_attention_equals_sglangs_kernels_in_the_interpreter():
    run_cases("test_linear_cases.py", "cpu", interpret=True)


def test_sglangs_gpu_backends_take_our_trees_in_the_interpreter():
    run_cases("test_tree_backends.py", "cpu", interpret=True)


def test_kernels_compile_for_cuda(tmp_path):
    run_cases("test_compile.py", "none", interpret=False, TRITON_CACHE_DIR=str(tmp_path))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_kernels_equal_their_twins_on_cuda():
    run_cases("test_cases.py", "cuda", interpret=False)
    run_cases("test_linear_cases.py", "cuda", interpret=False)
    run_cases("test_tree_backends.py", "cuda", interpret=False)


def test_choice_follows_the_device():
    """Triton on CUDA, the twin elsewhere; choosing the twin must not import Triton."""
    code = (
        "import sys\n"
        "from importlib import import_module\n"
        "names = ('accept', 'compact_kv', 'inject_kv', 'prepare_block', 'qk_norm_rope', 'tree_links', 'tree_mask')\n"
        "names += ('best_tree', 'block_convolution', 'selected_path', 'visibility', 'window_rows')\n"
        "ops = [import_module(f'sglang_dflash.kernels.{name}') for name in names]\n"
        "assert all(op.choose('cpu').__module__ == op.__name__ + '.naive' for op in ops)\n"
        "assert 'triton' not in sys.modules\n"
        "assert all(op.choose('cuda').__module__ == op.__name__ + '.triton' for op in ops)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
