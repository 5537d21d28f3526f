"""The torch twins against plain Python."""

import random

import kernel_inputs as inputs
import kernel_oracles as oracles
import pytest
import torch

from sglang_dflash.errors import DFlashError
from sglang_dflash.kernels.accept.naive import accept
from sglang_dflash.kernels.block_convolution.naive import convolve_blocks
from sglang_dflash.kernels.compact_kv import make_kv_table
from sglang_dflash.kernels.compact_kv.naive import compact_kv
from sglang_dflash.kernels.inject_kv import make_inject_plan
from sglang_dflash.kernels.inject_kv.naive import inject_kv
from sglang_dflash.kernels.prepare_block.naive import prepare_block
from sglang_dflash.kernels.qk_norm_rope.naive import qk_norm_rope
from sglang_dflash.kernels.seeded_hash import murmur_hash32
from sglang_dflash.kernels.selected_path.naive import selected_path
from sglang_dflash.kernels.tree_links.naive import links_from_parents
from sglang_dflash.kernels.tree_mask.naive import flat_mask
from sglang_dflash.kernels.visibility.naive import visibility_from_parents
from sglang_dflash.kernels.window_rows.naive import window_rows


@pytest.mark.parametrize("bs", inputs.BATCH_SIZES)
@pytest.mark.parametrize("block_size", (1, 2, 5, 16))
@pytest.mark.parametrize("more", (0, 1, 22))
def test_prepare_block(bs, block_size, more):
    """``more``: columns of the window beyond the block, where the verify pass is wider."""
    arguments, guard = inputs.block_case(bs, block_size + more, "cpu", seed=bs)
    out = inputs.empty_block(bs, block_size, block_size + more, guard)
    prepare_block(*arguments, out)
    bonus, prefix, rows, table, mask = (a.tolist() if torch.is_tensor(a) else a for a in arguments)
    expected = oracles.prepare_block(bonus, prefix, rows, table, mask, block_size, block_size + more)
    assert [t.tolist() for t in out] == [list(e) for e in expected]
    guard.check()


@pytest.mark.parametrize("bs", inputs.BATCH_SIZES)
@pytest.mark.parametrize("window", inputs.WINDOWS, ids=str)
@pytest.mark.parametrize("columns", (97, 2500))
def test_window_rows(bs, window, columns):
    arguments, guard = inputs.window_case(bs, window, columns, "cpu")
    rows, requests, prefix_lens, _, out, visible = arguments
    window_rows(*arguments)
    for b, request in enumerate(requests.tolist()):
        slots, context = oracles.window_row(rows[request].tolist(), int(prefix_lens[b]), *window)
        assert visible[b] == context
        assert out[request, : len(slots)].tolist() == slots
    others = sorted(set(range(len(rows))) - set(requests.tolist()))
    assert (out[others] == inputs.POISON).all()
    guard.check()


@pytest.mark.parametrize("bs", inputs.BATCH_SIZES)
@pytest.mark.parametrize("width", (1, 2, 5, 16, 33))
@pytest.mark.parametrize("tree", (False, True))
@pytest.mark.parametrize("vocab", (1, 2, 111))
def test_accept(bs, width, tree, vocab):
    for seed in range(6):
        arguments, path_len, guard = inputs.accept_case(bs, width, vocab, tree, "cpu", seed)
        out = inputs.empty_accept(bs, path_len, guard)
        accept(*arguments, out)
        tokens, targets, parents, prefix_lens = arguments
        for b in range(bs):
            path, bonus = oracles.accept(tokens[b].tolist(), targets[b].tolist(), parents[b].tolist() if tree else None)
            emitted = [int(tokens[b, node]) for node in path[1:]] + [bonus]
            assert out.path[b].tolist() == path + [-1] * (path_len - len(path))
            assert out.emitted[b].tolist() == emitted + [0] * (path_len - len(path))
            assert out.commit_lens[b] == len(path)
            assert out.bonus[b] == bonus
            assert out.new_prefix_lens[b] == prefix_lens[b] + len(path)
        guard.check()


def test_accept_reaches_every_commit_length():
    width = 16
    tokens = torch.arange(width).repeat(width, 1)
    targets = tokens + 1
    targets[torch.arange(width), torch.arange(width)] = 999  # request b disagrees after node b
    guard = inputs.Guarded("cpu")
    out = inputs.empty_accept(width, width, guard)
    accept(tokens, targets, None, torch.zeros(width, dtype=torch.int64), out)
    assert out.commit_lens.tolist() == list(range(1, width + 1))


def test_accept_takes_the_first_of_equal_siblings():
    tokens = torch.tensor([[9, 4, 4, 5, 5]])
    parents = torch.tensor([[-1, 0, 0, 2, 1]], dtype=torch.int32)
    targets = torch.tensor([[4, 5, 5, 6, 7]])
    guard = inputs.Guarded("cpu")
    out = inputs.empty_accept(1, 3, guard)
    accept(tokens, targets, parents, torch.tensor([10]), out)
    assert out.path.tolist() == [[0, 1, 4]]
    assert out.emitted.tolist() == [[4, 5, 7]]


@pytest.mark.parametrize("bs", inputs.BATCH_SIZES)
@pytest.mark.parametrize("width", (1, 2, 7, 16, 65))
def test_visibility(bs, width):
    rng = random.Random(width)
    parents = [inputs.random_parents(width, rng, padded=True) for _ in range(bs)]
    guard = inputs.Guarded("cpu")
    out = guard.empty(bs, width, width, dtype=torch.bool)
    result = visibility_from_parents(torch.tensor(parents, dtype=torch.int32), out)
    assert result is out
    assert out.tolist() == [oracles.visibility(p) for p in parents]
    assert torch.equal(visibility_from_parents(torch.tensor(parents, dtype=torch.int32)), out)
    guard.check()


@pytest.mark.parametrize("bs", inputs.BATCH_SIZES)
@pytest.mark.parametrize("width", (1, 2, 7, 16, 65))
def test_tree_links(bs, width):
    parents, children, siblings, guard = inputs.links_case(bs, width, "cpu")
    links_from_parents(parents, children, siblings)
    wanted = [oracles.links(row) for row in parents.tolist()]
    assert list(zip(children.tolist(), siblings.tolist(), strict=True)) == wanted
    guard.check()


@pytest.mark.parametrize("bs", inputs.BATCH_SIZES)
@pytest.mark.parametrize("width", (1, 2, 7, 16))
def test_tree_mask(bs, width):
    parents, prefix_lens, out, guard = inputs.mask_case(bs, width, "cpu")
    seen, rows = visibility_from_parents(parents), list(zip(parents.tolist(), prefix_lens.tolist(), strict=True))
    untouched = out.view(torch.uint8).clone().view(torch.bool)
    flat_mask(seen, prefix_lens, out, context=True)
    assert out.tolist() == [cell for row, prefix in rows for cell in oracles.flat_mask(row, prefix)]
    guard.check()
    nodes = torch.tensor([i % (n + width) >= n for _, n in rows for i in range(width * (n + width))])
    flat_mask(seen, prefix_lens, untouched, context=False)
    assert torch.equal(untouched[nodes], out[nodes])
    assert (untouched.view(torch.uint8)[~nodes] == inputs.BOOL_POISON).all()


@pytest.mark.parametrize("shape", inputs.QK_CASES[:-2], ids=str)
def test_qk_norm_rope(shape):
    (qkv, positions, norms, cos_sin, interleaved), guard = inputs.qk_case("cpu", **shape)
    before, angles = qkv.clone(), cos_sin.double().tolist()
    turned = torch.cat(qk_norm_rope(qkv, positions, norms, cos_sin, interleaved), 1)
    heads = norms.heads + norms.kv_heads
    for token, position in enumerate(positions.tolist()):
        rows = before[token].double().view(-1, norms.head_dim)[:heads].tolist()
        for number, row in enumerate(rows):
            weight = norms.queries if number < norms.heads else norms.keys
            weights = (weight.double() + norms.offset).tolist()
            wanted = oracles.cached_key(row, position, weights, norms.eps, angles, interleaved)
            got = turned[token].view(heads, -1)[number].double()
            torch.testing.assert_close(got, torch.tensor(wanted).double(), rtol=2e-5, atol=2e-6)
    assert torch.equal(qkv, before)
    guard.check()


@pytest.mark.parametrize("shape", inputs.CONVOLUTION_CASES, ids=str)
def test_block_convolution(shape):
    (hidden, dynamic, base, block), guard = inputs.convolution_case(**shape, device="cpu")
    out = convolve_blocks(hidden, dynamic, base, block).view(-1, block, hidden.shape[1]).double()
    rows, kernels = (x.double().view(len(out), block, -1).tolist() for x in (hidden, dynamic.contiguous()))
    wanted = [
        oracles.convolve(a, b, base.double().tolist(), shape["groups"]) for a, b in zip(rows, kernels, strict=True)
    ]
    torch.testing.assert_close(out, torch.tensor(wanted).double(), rtol=1e-5, atol=1e-5)
    guard.check()


@pytest.mark.parametrize("bs", inputs.BATCH_SIZES)
@pytest.mark.parametrize("positions,k,rank", ((1, 1, 3), (4, 4, 6), (15, 8, 16)))
@pytest.mark.parametrize("transform", inputs.TRANSFORMS, ids=str)
def test_selected_path(bs, positions, k, rank, transform):
    (*arguments, transform), guard = inputs.path_case(bs, positions, k, rank, transform, "cpu")
    anchors, candidates, logits, weights, predecessors, successors = (
        x.double().tolist() if x.is_floating_point() else x.tolist() for x in arguments
    )
    for request, path in enumerate(selected_path(*arguments, transform).tolist()):
        own = (x[request] for x in (anchors, candidates, logits, weights))
        assert path == oracles.selected_path(*own, predecessors, successors, *transform)
    guard.check()


@pytest.mark.parametrize("heads,head_dim", ((1, 16), (2, 32), (8, 128)))
@pytest.mark.parametrize("interleaved", (False, True))
@pytest.mark.parametrize("partial", (False, True))
@pytest.mark.parametrize("norm,commits,packed", ((True, True, False), (False, True, False), (True, False, True)))
def test_inject_kv(heads, head_dim, interleaved, partial, norm, commits, packed):
    rotary_dim = head_dim // 2 if partial else head_dim
    case, guard = inputs.inject_case(
        "cpu",
        seed=head_dim,
        layers=3,
        heads=heads,
        head_dim=head_dim,
        rotary_dim=rotary_dim,
        interleaved=interleaved,
        norm=norm,
        commits=commits,
        packed=packed,
    )
    plan = case.plan
    before = [(k.clone(), v.clone()) for k, v in zip(plan.key_buffers, plan.value_buffers, strict=True)]
    inject_kv(*case)
    width = case.slots.numel() // 3
    kv = case.kv.view(-1, 3, 2, heads, head_dim)
    cos_sin = plan.cos_sin.double().tolist()
    written = {0}
    for t, slot in enumerate(case.slots.tolist()):
        if commits and t % width >= case.commit_lens[t // width]:
            continue
        written.add(slot)
        for layer in range(3):
            weight = plan.norm_weights[layer].double().tolist() if norm else None
            for head in range(heads):
                key = oracles.cached_key(
                    kv[t, layer, 0, head].double().tolist(),
                    int(case.positions[t]),
                    weight,
                    plan.eps,
                    cos_sin,
                    interleaved,
                )
                stored = plan.key_buffers[layer][slot, head].double()
                torch.testing.assert_close(stored, torch.tensor(key).double(), rtol=2e-5, atol=2e-6)
            assert torch.equal(plan.value_buffers[layer][slot], kv[t, layer, 1])
    untouched = [s for s in range(plan.key_buffers[0].shape[0]) if s not in written]
    for layer, (keys, values) in enumerate(before):
        assert torch.equal(plan.key_buffers[layer][untouched], keys[untouched])
        assert torch.equal(plan.value_buffers[layer][untouched], values[untouched])
    guard.check()


def test_inject_kv_casts_to_the_cache():
    case, _ = inputs.inject_case("cpu", seed=1, cache_dtype=torch.bfloat16, commits=False)
    exact, _ = inputs.inject_case("cpu", seed=1, commits=False)
    inject_kv(*case)
    inject_kv(*exact)
    got, wanted = case.plan.key_buffers[1][case.slots], exact.plan.key_buffers[1][case.slots]
    assert torch.equal(got, wanted.bfloat16())


@pytest.mark.parametrize("bs", inputs.BATCH_SIZES)
@pytest.mark.parametrize("width", (2, 16, 33))
def test_compact_kv(bs, width):
    for seed in range(5):
        path, commits, slots, table, guard = inputs.compact_case(
            bs, width, ((2, 16), (1, 8)), torch.float32, "cpu", seed
        )
        expected = []
        for buffer in table.buffers:
            rows = dict(enumerate(buffer.tolist()))
            for b in range(bs):
                oracles.compact(rows, path[b].tolist(), int(commits[b]), slots[b].tolist())
            expected.append([rows[slot] for slot in range(buffer.shape[0])])
        compact_kv(path, commits, slots, table)
        assert [buffer.tolist() for buffer in table.buffers] == expected
        guard.check()


def test_compact_kv_leaves_a_chain_alone():
    path = torch.tensor([[0, 1, 2, -1]])
    buffer = torch.randn(9, 4)
    before = buffer.clone()
    compact_kv(path, torch.tensor([3], dtype=torch.int32), torch.tensor([[5, 3, 8, 2]]), make_kv_table([buffer]))
    assert torch.equal(buffer, before)


def test_seeded_hash():
    assert oracles.murmur3(b"test") == 0xBA6BD213  # published test vectors
    assert oracles.murmur3(b"", seed=1) == 0x514E28B7
    seeds, positions = [0, 1, 42, 2**40 + 7, 2**63 - 1, -1, -(2**63)], [0, 1, 63, 2**20, 5, 6, 7]
    columns = list(range(0, 200_000, 9_973))
    arguments = torch.tensor(seeds), torch.tensor(positions), torch.tensor(columns, dtype=torch.int32)
    wanted = [[oracles.seeded_hash(s, p, c) for c in columns] for s, p in zip(seeds, positions, strict=True)]
    assert murmur_hash32(*arguments).tolist() == wanted
    assert murmur_hash32(arguments[0].view(torch.uint64), *arguments[1:]).tolist() == wanted


def test_bad_buffers_are_named():
    with pytest.raises(DFlashError, match="KV buffer 1"):
        make_kv_table([torch.zeros(4, 8), torch.zeros(8, 4).T])
    good = torch.zeros(4, 2, 8)
    with pytest.raises(DFlashError, match=r"value_buffers\[0\]"):
        make_inject_plan([good], [torch.zeros(4, 2, 16)], None, 1e-6, torch.zeros(3, 8))
    with pytest.raises(DFlashError, match="SGLANG_USE_HND_KVCACHE: lays"):
        by_head = torch.zeros(2, 2, 16, 8)  # pages, heads, places of a page
        make_inject_plan([by_head], [by_head], torch.zeros(1, 8), 1e-6, torch.zeros(3, 8))
    with pytest.raises(DFlashError, match="norm_weights"):
        make_inject_plan([good], [good], torch.zeros(2, 8), 1e-6, torch.zeros(3, 8))
