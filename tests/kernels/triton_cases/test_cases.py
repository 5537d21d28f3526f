"""Every Triton kernel against its torch twin; run by ../test_triton.py in a process of its own."""

import os
import random

import kernel_inputs as inputs
import pytest
import torch
from sglang.kernels.ops.attention.table_qk_norm_rope import table_qk_norm_rope_
from sglang.kernels.ops.sampling.murmur_hash import murmur_hash32_kernel

from sglang_dflash.kernels.accept.naive import accept as naive_accept
from sglang_dflash.kernels.accept.triton import accept
from sglang_dflash.kernels.best_tree.naive import best_tree as naive_best_tree
from sglang_dflash.kernels.best_tree.triton import best_tree
from sglang_dflash.kernels.block_convolution.naive import convolve_blocks as naive_convolve_blocks
from sglang_dflash.kernels.block_convolution.triton import convolve_blocks
from sglang_dflash.kernels.compact_kv.naive import compact_kv as naive_compact_kv
from sglang_dflash.kernels.compact_kv.triton import compact_kv
from sglang_dflash.kernels.continuation.naive import continuation as naive_continuation
from sglang_dflash.kernels.continuation.triton import continuation
from sglang_dflash.kernels.inject_kv.naive import inject_kv as naive_inject_kv
from sglang_dflash.kernels.inject_kv.triton import inject_kv
from sglang_dflash.kernels.prepare_block.naive import prepare_block as naive_prepare_block
from sglang_dflash.kernels.prepare_block.triton import prepare_block
from sglang_dflash.kernels.qk_norm_rope.naive import qk_norm_rope as naive_qk_norm_rope
from sglang_dflash.kernels.qk_norm_rope.triton import qk_norm_rope
from sglang_dflash.kernels.seeded_hash import murmur_hash32
from sglang_dflash.kernels.selected_path.naive import selected_path as naive_selected_path
from sglang_dflash.kernels.selected_path.triton import selected_path
from sglang_dflash.kernels.tree_links.naive import links_from_parents as naive_links
from sglang_dflash.kernels.tree_links.triton import links_from_parents
from sglang_dflash.kernels.tree_mask.naive import flat_mask as naive_flat_mask
from sglang_dflash.kernels.tree_mask.triton import flat_mask
from sglang_dflash.kernels.visibility.naive import visibility_from_parents as naive_visibility
from sglang_dflash.kernels.visibility.triton import visibility_from_parents
from sglang_dflash.kernels.window_rows.naive import window_rows as naive_window_rows
from sglang_dflash.kernels.window_rows.triton import window_rows

DEVICE = os.environ["SGLANG_DFLASH_KERNEL_CASES"]


@pytest.mark.parametrize("bs", inputs.BATCH_SIZES)
@pytest.mark.parametrize("block_size", (1, 2, 5, 16))
@pytest.mark.parametrize("more", (0, 1, 22))
def test_prepare_block(bs, block_size, more):
    """``more``: columns of the window beyond the block, where the verify pass is wider."""
    arguments, guard = inputs.block_case(bs, block_size + more, DEVICE, seed=bs)
    out, wanted = (inputs.empty_block(bs, block_size, block_size + more, guard) for _ in range(2))
    prepare_block(*arguments, out)
    naive_prepare_block(*arguments, wanted)
    assert all(torch.equal(a, b) for a, b in zip(out, wanted, strict=True))
    guard.check()


@pytest.mark.parametrize("bs", inputs.BATCH_SIZES)
@pytest.mark.parametrize("window", inputs.WINDOWS, ids=str)
@pytest.mark.parametrize("columns", (97, 2500))
def test_window_rows(bs, window, columns):
    arguments, guard = inputs.window_case(bs, window, columns, DEVICE)
    (*_, out, visible), (*given, wanted, context) = arguments, inputs.window_case(bs, window, columns, DEVICE)[0]
    window_rows(*arguments)
    naive_window_rows(*given, wanted, context)
    assert torch.equal(visible, context)
    for request, n in zip(given[1].tolist(), (context + window.block).tolist(), strict=True):
        assert torch.equal(out[request, :n], wanted[request, :n])
        assert (out[request, n:] == inputs.POISON).all()
    guard.check()


@pytest.mark.parametrize("bs", inputs.BATCH_SIZES)
@pytest.mark.parametrize("width", (1, 2, 5, 16, 33))
@pytest.mark.parametrize("tree", (False, True))
@pytest.mark.parametrize("vocab", (1, 2, 111))
def test_accept(bs, width, tree, vocab):
    for seed in range(3):
        arguments, path_len, guard = inputs.accept_case(bs, width, vocab, tree, DEVICE, seed)
        out, wanted = (inputs.empty_accept(bs, path_len, guard) for _ in range(2))
        accept(*arguments, out)
        naive_accept(*arguments, wanted)
        for name, a, b in zip(out._fields, out, wanted, strict=True):
            assert torch.equal(a, b), name
        guard.check()


@pytest.mark.parametrize("bs", inputs.BATCH_SIZES)
@pytest.mark.parametrize("width", (1, 2, 7, 16, 65))
def test_visibility(bs, width):
    rng = random.Random(width)
    guard = inputs.Guarded(DEVICE)
    rows = [inputs.random_parents(width, rng, padded=True) for _ in range(bs)]
    parents = guard.copy(torch.tensor(rows, dtype=torch.int32))
    out, wanted = (guard.empty(bs, width, width, dtype=torch.bool) for _ in range(2))
    visibility_from_parents(parents, out)
    assert torch.equal(out, naive_visibility(parents, wanted))
    guard.check()


@pytest.mark.parametrize("bs", inputs.BATCH_SIZES)
@pytest.mark.parametrize("width", (1, 2, 7, 16, 65))
def test_tree_links(bs, width):
    parents, *out, guard = inputs.links_case(bs, width, DEVICE)
    wanted = [guard.empty(bs, width, dtype=torch.int32) for _ in range(2)]
    links_from_parents(parents, *out)
    naive_links(parents, *wanted)
    assert all(torch.equal(a, b) for a, b in zip(out, wanted, strict=True))
    guard.check()


@pytest.mark.parametrize("bs", inputs.BATCH_SIZES)
@pytest.mark.parametrize("width", (1, 2, 7, 16))
@pytest.mark.parametrize("longest", (30, 2500))
@pytest.mark.parametrize("context", (False, True))
def test_tree_mask(bs, width, longest, context):
    parents, prefix_lens, out, guard = inputs.mask_case(bs, width, DEVICE, longest)
    seen, wanted = naive_visibility(parents), out.view(torch.uint8).clone().view(torch.bool)
    flat_mask(seen, prefix_lens, out, context)
    naive_flat_mask(seen, prefix_lens, wanted, context)
    assert torch.equal(out.view(torch.uint8), wanted.view(torch.uint8))
    guard.check()


@pytest.mark.parametrize("shape", inputs.QK_CASES, ids=str)
def test_qk_norm_rope(shape):
    arguments, guard = inputs.qk_case(DEVICE, **shape)
    before = arguments[0].clone()
    ulp = torch.finfo(before.dtype).eps
    for got, wanted in zip(qk_norm_rope(*arguments), naive_qk_norm_rope(*arguments), strict=True):
        assert got.is_contiguous() and got.dtype == before.dtype
        # fp32 sums are ordered differently; in 16 bits that may flip the last bit of a result.
        torch.testing.assert_close(got, wanted, rtol=max(ulp, 1e-5), atol=max(ulp, 2e-6))
    assert torch.equal(arguments[0], before)
    guard.check()


def test_qk_norm_rope_is_that_of_the_built_in_draft():
    """Up to its rounding between norm and rotation."""
    (qkv, positions, norms, cos_sin, _), _ = inputs.qk_case(DEVICE, heads=8, head_dim=128, dtype=torch.bfloat16)
    queries, keys = qk_norm_rope(qkv, positions, norms, cos_sin, False)
    heads = (norms.heads, norms.kv_heads, norms.head_dim)
    table_qk_norm_rope_(qkv, positions, norms.queries, norms.keys, cos_sin, *heads, norms.eps)
    wanted = qkv[:, : queries.shape[1] + keys.shape[1]]
    ulp = torch.finfo(torch.bfloat16).eps
    torch.testing.assert_close(torch.cat((queries, keys), 1), wanted, rtol=2 * ulp, atol=4 * ulp)


@pytest.mark.parametrize("shape", inputs.CONVOLUTION_CASES, ids=str)
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_block_convolution(shape, dtype):
    arguments, guard = inputs.convolution_case(**shape, device=DEVICE, dtype=dtype)
    got = convolve_blocks(*arguments)
    assert got.dtype == dtype
    # The twin rounds every product and sum, the kernel the whole.
    ulp = torch.finfo(dtype).eps
    exact = naive_convolve_blocks(*(x.float() if torch.is_tensor(x) else x for x in arguments))
    torch.testing.assert_close(got.float(), exact, rtol=max(ulp, 1e-5), atol=max(ulp / 8, 1e-5))
    guard.check()


@pytest.mark.parametrize("bs", inputs.BATCH_SIZES)
@pytest.mark.parametrize("positions,k,rank", ((1, 1, 3), (4, 4, 6), (15, 8, 16)))
@pytest.mark.parametrize("transform", inputs.TRANSFORMS, ids=str)
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_selected_path(bs, positions, k, rank, transform, dtype):
    arguments, guard = inputs.path_case(bs, positions, k, rank, transform, DEVICE, dtype)
    exact = [x.float() if torch.is_tensor(x) and x.is_floating_point() else x for x in arguments]
    assert torch.equal(selected_path(*arguments), naive_selected_path(*exact))
    guard.check()


def test_selected_path_takes_the_first_of_equal_scores():
    anchors, candidates = torch.tensor([3]).to(DEVICE), torch.tensor([[[7, 5, 6]]]).to(DEVICE)
    logits, flat = torch.tensor([[[1.0, 2.0, 2.0]]]).to(DEVICE), torch.zeros(8, 2).to(DEVICE)
    weights = torch.zeros(1, 1, 2).to(DEVICE)
    path = selected_path(anchors, candidates, logits, weights, flat, flat, inputs.TRANSFORMS[0])
    assert path.tolist() == [[3, 5]]


@pytest.mark.parametrize("bs", inputs.BATCH_SIZES)
@pytest.mark.parametrize("pairs", (False, True))
@pytest.mark.parametrize("positions, k, width", ((1, 1, 2), (1, 3, 7), (15, 4, 32), (7, 5, 19), (15, 1, 40)))
def test_best_tree(bs, pairs, positions, k, width):
    arguments, guard = inputs.tree_case(bs, positions, k, pairs, DEVICE, seed=width)
    for out, wanted in zip(best_tree(*arguments, width), naive_best_tree(*arguments, width), strict=True):
        assert out.dtype == wanted.dtype and torch.equal(out, wanted)
    guard.check()


@pytest.mark.parametrize("length", [1, 6, 40])
@pytest.mark.parametrize(
    ("bs", "pairs", "positions", "k", "width"),
    [(3, False, 7, 3, 16), (2, True, 5, 4, 33), (1, False, 4, 1, 9), (5, True, 3, 2, 8), (2, False, 15, 8, 64)],
)
def test_best_tree_with_a_continuation(bs, pairs, positions, k, width, length):
    arguments, guard = inputs.tree_case(bs, positions, k, pairs, DEVICE, seed=width)
    context, other_guard = inputs.context_case(arguments[1], length, DEVICE, seed=length)
    outs, wanted = best_tree(*arguments, width, context), naive_best_tree(*arguments, width, context)
    for out, want in zip(outs, wanted, strict=True):
        assert out.dtype == want.dtype and torch.equal(out, want)
    guard.check()
    other_guard.check()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("width", "count"), [(1, 1), (20, 15), (40, 7)])
def test_continuation(width, count, seed):
    arguments, guard = inputs.continuation_case(9, width, count, DEVICE, seed)
    outs, wanted = continuation(*arguments, count), naive_continuation(*arguments, count)
    for out, want in zip(outs, wanted, strict=True):
        assert out.dtype == want.dtype and torch.equal(out, want)
    guard.check()


def test_best_tree_takes_the_first_found_of_equal_scores():
    anchors, candidates = torch.tensor([3]).to(DEVICE), torch.tensor([[[7, 5], [6, 8], [1, 2]]]).to(DEVICE)
    flat = torch.zeros(1, 3, 2, dtype=torch.float64).to(DEVICE)
    for out, wanted in zip(
        best_tree(anchors, candidates, flat, None, 12),
        naive_best_tree(anchors, candidates, flat, None, 12),
        strict=True,
    ):
        assert torch.equal(out, wanted)


INJECT_CASES = (
    {"bs": 1, "width": 2, "heads": 1, "head_dim": 16},
    {"bs": 17, "width": 2, "heads": 2, "head_dim": 32},
    {"bs": 3, "width": 5, "heads": 8, "head_dim": 128},
    {"bs": 1, "width": 16, "heads": 3, "head_dim": 48, "rotary_dim": 24},
    {"rotary_dim": 16},
    {"interleaved": True},
    {"interleaved": True, "rotary_dim": 12},
    {"norm": False},
    {"commits": False},
    {"layers": 1},
    {"layers": 5},
    {"packed": True},
    {"kv_dtype": torch.bfloat16, "cache_dtype": torch.bfloat16},
    {"kv_dtype": torch.float16, "cache_dtype": torch.float16},
    {"kv_dtype": torch.bfloat16, "cache_dtype": torch.float32},
)


@pytest.mark.parametrize("shape", INJECT_CASES, ids=lambda shape: "-".join(f"{k}{v}" for k, v in shape.items()))
def test_inject_kv(shape):
    case, guard = inputs.inject_case(DEVICE, seed=3, **shape)
    twin, _ = inputs.inject_case(DEVICE, seed=3, **shape)
    inject_kv(*case)
    naive_inject_kv(*twin)
    # Slot 0 is where the twin sends what the kernel does not write at all.
    for got, wanted in zip(case.plan.value_buffers, twin.plan.value_buffers, strict=True):
        assert torch.equal(got[1:], wanted[1:])
    # fp32 sums are ordered differently; in 16 bits that may flip the last bit of a result.
    ulp = torch.finfo(case.plan.key_buffers[0].dtype).eps
    for got, wanted in zip(case.plan.key_buffers, twin.plan.key_buffers, strict=True):
        torch.testing.assert_close(got[1:], wanted[1:], rtol=max(ulp, 1e-5), atol=max(ulp, 2e-6))
    guard.check()


@pytest.mark.parametrize("bs", inputs.BATCH_SIZES)
@pytest.mark.parametrize("width", (2, 16, 33))
@pytest.mark.parametrize("row_shapes", (((2, 16), (1, 8)), ((8, 128), (2, 6), (1, 2))))
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_compact_kv(bs, width, row_shapes, dtype):
    *arguments, table, guard = inputs.compact_case(bs, width, row_shapes, dtype, DEVICE, seed=bs)
    *_, twin, _ = inputs.compact_case(bs, width, row_shapes, dtype, DEVICE, seed=bs)
    compact_kv(*arguments, table)
    naive_compact_kv(*arguments, twin)
    assert all(torch.equal(a, b) for a, b in zip(table.buffers, twin.buffers, strict=True))
    guard.check()


def test_seeded_hash_equals_the_hosts_kernel():
    torch.manual_seed(1)
    rows, columns = 5, 111
    seeds = torch.randint(-(2**62), 2**62, (rows,), device=DEVICE)
    positions = torch.randint(0, 2**20, (rows,), device=DEVICE)
    column_ids = torch.arange(columns, device=DEVICE)
    hashed = torch.empty(rows, columns, dtype=torch.uint32, device=DEVICE)
    murmur_hash32_kernel[(rows, 1)](
        seeds.view(torch.uint64), positions, column_ids, hashed, rows, columns, BLOCK_SIZE=128
    )
    assert torch.equal(murmur_hash32(seeds, positions, column_ids), hashed.to(torch.int64))
