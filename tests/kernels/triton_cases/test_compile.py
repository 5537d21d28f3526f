"""Every Triton kernel compiles to machine code for real cards, without one: ptxas comes with Triton.

The ops are called as they are served; what they would launch is compiled with the sizes and alignments of the call.
"""

import re
from unittest import mock

import kernel_inputs as inputs
import pytest
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from sglang_dflash.kernels.accept.triton import accept
from sglang_dflash.kernels.best_tree.triton import best_tree
from sglang_dflash.kernels.block_convolution.triton import convolve_blocks
from sglang_dflash.kernels.compact_kv.triton import compact_kv
from sglang_dflash.kernels.continuation.triton import continuation
from sglang_dflash.kernels.inject_kv.triton import inject_kv
from sglang_dflash.kernels.prepare_block.triton import prepare_block
from sglang_dflash.kernels.qk_norm_rope.triton import qk_norm_rope
from sglang_dflash.kernels.selected_path.triton import selected_path
from sglang_dflash.kernels.tree_links.triton import links_from_parents
from sglang_dflash.kernels.tree_mask.triton import flat_mask
from sglang_dflash.kernels.visibility.triton import visibility_from_parents
from sglang_dflash.kernels.window_rows.triton import window_rows

CARDS = (80, 90, 100, 120)
BF16, FP16 = torch.bfloat16, torch.float16
SERVED = {"bs": 2, "width": 16, "heads": 8, "head_dim": 128, "kv_dtype": BF16, "cache_dtype": BF16}


def blocks():
    arguments, guard = inputs.block_case(3, 16, "cpu", 0)
    prepare_block(*arguments, inputs.empty_block(3, 16, 16, guard))


def paths(tree: bool):
    arguments, path_len, guard = inputs.accept_case(3, 40, 9, tree, "cpu", 0)
    accept(*arguments, inputs.empty_accept(3, path_len, guard))


def masks(context: bool):
    parents, prefix_lens, out, _ = inputs.mask_case(3, 16, "cpu")
    flat_mask(visibility_from_parents(parents), prefix_lens, out, context)


def convolution(dtype, **shape):
    convolve_blocks(*inputs.convolution_case(**shape, device="cpu", dtype=dtype)[0])


def path(k, rank, dtype, transform):
    selected_path(*inputs.path_case(3, 15, k, rank, transform, "cpu", dtype)[0])


def tree(pairs: bool, k: int, width: int):
    arguments = inputs.tree_case(3, 15, k, pairs, "cpu", 0)[0]
    best_tree(*arguments, width, inputs.context_case(arguments[1], width - 1, "cpu", 0)[0])


CASES = {
    "prepare_block": blocks,
    "window_rows": lambda: window_rows(*inputs.window_case(3, inputs.WINDOWS[2], 2500, "cpu")[0]),
    "accept_chain": lambda: paths(False),
    "accept_tree": lambda: paths(True),
    "tree_links": lambda: links_from_parents(*inputs.links_case(3, 40, "cpu")[:3]),
    "visibility, tree_mask": lambda: masks(False),
    "tree_mask with context": lambda: masks(True),
    "compact_kv": lambda: compact_kv(*inputs.compact_case(3, 16, ((8, 128), (1, 6)), BF16, "cpu", 0)[:4]),
    "inject_kv": lambda: inject_kv(*inputs.inject_case("cpu", 0, **SERVED)[0]),
    "inject_kv, fp16, all rows, no norm": lambda: inject_kv(
        *inputs.inject_case("cpu", 0, kv_dtype=FP16, cache_dtype=FP16, commits=False, norm=False)[0]
    ),
    "inject_kv, odd": lambda: inject_kv(
        *inputs.inject_case("cpu", 0, heads=3, head_dim=80, rotary_dim=24, interleaved=True, packed=True)[0]
    ),
    "qk_norm_rope": lambda: qk_norm_rope(*inputs.qk_case("cpu", heads=32, kv_heads=8, head_dim=128, dtype=BF16)[0]),
    "qk_norm_rope, fp16, 1 + weight": lambda: qk_norm_rope(*inputs.qk_case("cpu", offset=1.0, dtype=FP16)[0]),
    "qk_norm_rope, odd": lambda: qk_norm_rope(
        *inputs.qk_case("cpu", heads=3, kv_heads=1, head_dim=80, rotary_dim=24, interleaved=True)[0]
    ),
    "block_convolution": lambda: convolution(BF16, bs=2, block=16, taps=2, groups=8, size=128),
    "block_convolution, fp16, odd": lambda: convolution(FP16, bs=2, block=5, taps=3, groups=3, size=7),
    "best_tree": lambda: best_tree(*inputs.tree_case(3, 15, 8, False, "cpu", 0)[0], 64),
    "best_tree, pairs": lambda: best_tree(*inputs.tree_case(3, 15, 5, True, "cpu", 0)[0], 128),
    "best_tree, context": lambda: tree(False, 8, 64),
    "best_tree, pairs and context": lambda: tree(True, 5, 128),
    "continuation": lambda: continuation(*inputs.continuation_case(3, 20, 15, "cpu", 0)[0], 15),
    "selected_path": lambda: path(16, 128, BF16, inputs.TRANSFORMS[0]),
    "selected_path, fp16, odd": lambda: path(5, 24, FP16, inputs.TRANSFORMS[1]),
}


class Card:
    """In the place of Triton's driver."""

    def __init__(self, capability: int):
        self.get_current_target = lambda: GPUTarget("cuda", capability, 32)
        self.get_current_device = lambda: capability
        self.get_current_stream = lambda device: 0


def compiled(name: str, capability: int) -> list:
    """What a case launches on a card."""
    found, run = [], JITFunction.run

    def compile_only(kernel, *args, grid, warmup, **kwargs):
        found.append(run(kernel, *args, grid=grid, warmup=True, **kwargs))

    driver.set_active(Card(capability))
    with mock.patch.object(JITFunction, "run", compile_only):
        CASES[name]()
    return found


@pytest.mark.parametrize("capability", CARDS)
@pytest.mark.parametrize("name", CASES)
def test_compiles(name, capability):
    kernels = compiled(name, capability)
    assert kernels and all(kernel.asm["cubin"] for kernel in kernels)


def test_injected_kv_is_stored_in_vectors():
    (kernel,) = compiled("inject_kv", 90)
    stores = re.findall(r"st\.global\.(\S+)", kernel.asm["ptx"])
    assert stores and all(store.startswith("v") for store in stores), stores
