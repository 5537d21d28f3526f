"""Every Triton kernel compiles to machine code for real cards, without one: ptxas comes with Triton."""

import pytest
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from sglang_dflash.kernels.accept.triton import _accept_chain_kernel, _accept_tree_kernel
from sglang_dflash.kernels.compact_kv.triton import _compact_kv_kernel
from sglang_dflash.kernels.inject_kv.triton import _inject_kv_kernel
from sglang_dflash.kernels.prepare_block.triton import _prepare_block_kernel
from sglang_dflash.kernels.tree_links.triton import _links_kernel
from sglang_dflash.kernels.tree_mask.triton import _flat_mask_kernel
from sglang_dflash.kernels.visibility.triton import _visibility_kernel

I64, I32 = "*i64", "*i32"
INJECT = {
    "kv": "*bf16",
    "positions": I64,
    "slots": I64,
    "commit_lens": I32,
    "norm_weights": "*bf16",
    "cos_sin": "*fp32",
    "pointers": I64,
    "like": "*bf16",
    "eps": "fp32",
    "width": "i32",
    "slot_stride": "i32",
}
INJECT_SHAPE = {
    "HEADS": 8,
    "HEAD_DIM": 128,
    "ROTARY_DIM": 128,
    "INTERLEAVED": False,
    "HAS_COMMIT": True,
    "HAS_NORM": True,
    "BLOCK_H": 8,
    "BLOCK_HALF": 64,
    "BLOCK_REST": 1,
    "BLOCK_D": 128,
}
ACCEPTANCE = {
    "path": I64,
    "commit_lens": I32,
    "bonus": I64,
    "emitted": I64,
    "new_prefix_lens": I64,
}
CASES = {
    "prepare_block": (
        _prepare_block_kernel,
        {
            "bonus_tokens": I64,
            "prefix_lens": I64,
            "req_pool_indices": I64,
            "req_to_token": I32,
            "ids": I64,
            "positions": I64,
            "slots": I64,
            "row_stride": "i32",
            "mask_token_id": "i32",
            "block_size": "i32",
            "window": "i32",
        },
        {"BLOCK": 16},
    ),
    "accept_chain": (
        _accept_chain_kernel,
        {"tokens": I64, "target_tokens": I64, "prefix_lens": I64, **ACCEPTANCE, "width": "i32"},
        {"BLOCK": 16},
    ),
    "accept_tree": (
        _accept_tree_kernel,
        {
            "tokens": I64,
            "target_tokens": I64,
            "parents": I32,
            "prefix_lens": I64,
            **ACCEPTANCE,
            "width": "i32",
            "path_len": "i32",
        },
        {"BLOCK_W": 64, "BLOCK_D": 16},
    ),
    "visibility": (
        _visibility_kernel,
        {"parents": I32, "out": "*i8", "width": "i32"},
        {"BLOCK_R": 16, "BLOCK_W": 64},
    ),
    "tree_links": (
        _links_kernel,
        {"parents": I32, "children": I32, "siblings": I32, "width": "i32"},
        {"BLOCK_W": 64},
    ),
    "tree_mask": (
        _flat_mask_kernel,
        {"visibility": "*i8", "prefix_lens": I64, "out": "*i8", "width": "i32"},
        {"CONTEXT": True, "BLOCK_B": 32, "BLOCK_W": 64, "BLOCK": 1024},
    ),
    "compact_kv": (
        _compact_kv_kernel,
        {
            "path": I64,
            "commit_lens": I32,
            "window_slots": I64,
            "pointers": I64,
            "row_words": I32,
            "slot_words": I64,
            "path_len": "i32",
            "width": "i32",
        },
        {"BLOCK_D": 16, "BLOCK_C": 256},
    ),
    "inject_kv": (_inject_kv_kernel, INJECT, INJECT_SHAPE),
    "inject_kv_partial": (
        _inject_kv_kernel,
        INJECT | {"kv": "*fp32", "norm_weights": "*fp32", "like": "*fp32"},
        INJECT_SHAPE
        | {"HEAD_DIM": 48, "ROTARY_DIM": 24, "BLOCK_HALF": 16, "BLOCK_REST": 32, "BLOCK_D": 64}
        | {"INTERLEAVED": True, "HAS_COMMIT": False, "HAS_NORM": False},
    ),
}


@pytest.mark.parametrize("capability", (80, 90))
@pytest.mark.parametrize("name", CASES)
def test_compiles(name, capability):
    kernel, arguments, constants = CASES[name]
    signature = arguments | dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, signature, {(kernel.arg_names.index(k),): v for k, v in constants.items()})
    compiled = compile(source, target=GPUTarget("cuda", capability, 32))
    assert compiled.asm["cubin"]
