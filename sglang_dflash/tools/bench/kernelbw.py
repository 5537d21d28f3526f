"""Memory traffic of the kernels beside a plain copy: ``sglang-dflash bench kernels``."""

import json
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from sglang_dflash.kernels import (
    accept,
    block_convolution,
    compact_kv,
    inject_kv,
    prepare_block,
    qk_norm_rope,
    selected_path,
    tree_links,
    tree_mask,
    visibility,
    window_rows,
)
from sglang_dflash.types import empty_acceptance, empty_block_inputs

REPEATS = 30


class Shape(NamedTuple):
    """A served configuration: Qwen3-8B with its five-layer draft by default."""

    bs: int = 32
    width: int = 16
    layers: int = 5
    heads: int = 8
    head_dim: int = 128
    target_layers: int = 36
    vocab: int = 151_936
    slots: int = 65_536


class Timing(NamedTuple):
    """One op: bytes that it must read and write, and the median time of a call."""

    op: str
    bytes: int
    microseconds: float

    @property
    def gigabytes_per_second(self) -> float:
        """Bytes over time."""
        return self.bytes / self.microseconds / 1e3


def _nbytes(*tensors: torch.Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _median_us(call: Callable[[], object], device: str) -> float:
    """Median over REPEATS calls after a warm-up: events on CUDA, the clock elsewhere."""
    for _ in range(5):
        call()
    times = []
    for _ in range(REPEATS):
        if device == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) * 1e3)
        else:
            begin = time.perf_counter()
            call()
            times.append((time.perf_counter() - begin) * 1e6)
    return statistics.median(times)


def copy_ceiling(device: str, megabytes: int = 512) -> Timing:
    """A plain device-to-device copy, the ceiling that the ops are held against."""
    source = torch.empty(megabytes << 20, dtype=torch.uint8, device=device)
    sink = torch.empty_like(source)
    return Timing("copy", 2 * _nbytes(source), _median_us(lambda: sink.copy_(source), device))


def measure(device: str, shape: Shape | None = None, dtype: torch.dtype = torch.bfloat16) -> list[Timing]:
    """Time every op at ``shape`` on ``device`` ("cuda" or "cpu")."""
    shape = shape or Shape()
    torch.manual_seed(0)
    chains = (_prepare_block, _window_rows, _qk_norm_rope, _accept_chain, _inject_kv)
    trees = (_accept_tree, _visibility, _tree_links, _tree_mask, _compact_kv)
    cases = (*chains, *trees, _block_convolution, _selected_path)
    rows = []
    for case in cases:
        size, call = case(device, shape, dtype)
        rows.append(Timing(case.__name__.strip("_"), size, _median_us(call, device)))
    return rows


def _prepare_block(device, shape: Shape, dtype):
    bs, width = shape.bs, shape.width
    out = empty_block_inputs(bs, width, width, device)
    tokens, prefix = (torch.randint(0, 1000, (bs,), device=device) for _ in range(2))
    rows = torch.arange(bs, device=device)
    table = torch.randint(1, shape.slots, (bs, 4096), dtype=torch.int32, device=device)
    op = prepare_block.choose(device)
    size = _nbytes(*out, tokens, prefix, rows) + bs * width * 4
    return size, lambda: op(tokens, prefix, rows, table, 7, out)


def _window_rows(device, shape: Shape, dtype):
    rows = torch.randint(1, shape.slots, (shape.bs, 8192), dtype=torch.int32, device=device)
    window, out = window_rows.Window(4096, 1, shape.width), torch.empty_like(rows)
    prefix, requests = torch.full((shape.bs,), 8000, device=device), torch.arange(shape.bs, device=device)
    op, visible = window_rows.choose(device), torch.empty_like(prefix)
    size = 2 * _nbytes(rows[:, : window.widest]) + _nbytes(prefix, requests, visible)
    return size, lambda: op(rows, requests, prefix, window, out, visible)


def _qk_norm_rope(device, shape: Shape, dtype):
    tokens, heads = shape.bs * shape.width, 4 * shape.heads
    weight = torch.ones(shape.head_dim, dtype=dtype, device=device)
    norms = qk_norm_rope.HeadNorms(heads, shape.heads, shape.head_dim, weight, weight, 0.0, 1e-6)
    qkv = torch.randn(tokens, (heads + 2 * shape.heads) * shape.head_dim, device=device).to(dtype)
    positions, cos_sin = torch.arange(tokens, device=device), torch.randn(tokens, shape.head_dim, device=device)
    op = qk_norm_rope.choose(device)
    size = 2 * _nbytes(qkv[:, : (heads + shape.heads) * shape.head_dim]) + _nbytes(positions, cos_sin)
    return size, lambda: op(qkv, positions, norms, cos_sin, False)


def _block_convolution(device, shape: Shape, dtype):
    tokens, hidden, taps, groups = shape.bs * shape.width, 4 * shape.heads * shape.head_dim, 2, shape.heads
    x, base = (torch.randn(n, hidden, device=device).to(dtype) for n in (tokens, taps))
    dynamic = torch.randn(tokens, taps * groups, device=device).to(dtype)
    op = block_convolution.choose(device)
    return 2 * _nbytes(x) + _nbytes(dynamic, base), lambda: op(x, dynamic, base, shape.width)


def _selected_path(device, shape: Shape, dtype):
    steps, k, rank = shape.width - 1, 16, 128
    books = [torch.randn(shape.vocab, rank, device=device).to(dtype) for _ in range(2)]
    candidates = torch.randint(0, shape.vocab, (shape.bs, steps, k), device=device)
    logits, weights = (torch.randn(shape.bs, steps, n, device=device).to(dtype) for n in (k, rank))
    anchors, transform = torch.zeros(shape.bs, dtype=torch.int64, device=device), selected_path.Transform(1.0, None)
    op = selected_path.choose(device)
    size = _nbytes(candidates, logits, weights) + shape.bs * steps * (k + 1) * _nbytes(books[0][0])
    return size, lambda: op(anchors, candidates, logits, weights, *books, transform)


def _accept(device, shape: Shape, parents):
    tokens = torch.zeros(shape.bs, shape.width, dtype=torch.int64, device=device)
    prefix = torch.zeros(shape.bs, dtype=torch.int64, device=device)
    out = empty_acceptance(shape.bs, shape.width, device)
    op = accept.choose(device)
    size = _nbytes(tokens, tokens, prefix, *out) + (0 if parents is None else _nbytes(parents))
    return size, lambda: op(tokens, tokens, parents, prefix, out)


def _accept_chain(device, shape: Shape, dtype):
    return _accept(device, shape, None)


def _chain_parents(device, shape: Shape) -> torch.Tensor:
    nodes = torch.arange(-1, shape.width - 1, dtype=torch.int32, device=device)
    return nodes.repeat(shape.bs, 1)


def _accept_tree(device, shape: Shape, dtype):
    return _accept(device, shape, _chain_parents(device, shape))


def _visibility(device, shape: Shape, dtype):
    parents = _chain_parents(device, shape)
    out = torch.empty(shape.bs, shape.width, shape.width, dtype=torch.bool, device=device)
    op = visibility.choose(device)
    return _nbytes(parents, out), lambda: op(parents, out)


def _tree_links(device, shape: Shape, dtype):
    parents = _chain_parents(device, shape)
    out = [torch.empty_like(parents) for _ in range(2)]
    op = tree_links.choose(device)
    return _nbytes(parents, *out), lambda: op(parents, *out)


def _tree_mask(device, shape: Shape, dtype):
    seen = visibility.choose(device)(_chain_parents(device, shape))
    prefix_lens = torch.randint(0, 4096, (shape.bs,), device=device)
    out = torch.empty(int(((prefix_lens + shape.width) * shape.width).sum()), dtype=torch.bool, device=device)
    op = tree_mask.choose(device)
    return _nbytes(seen, prefix_lens, out), lambda: op(seen, prefix_lens, out, True)


def _inject_kv(device, shape: Shape, dtype):
    tokens, row = shape.bs * shape.width, (shape.heads, shape.head_dim)
    buffers = [torch.zeros(shape.slots, *row, dtype=dtype, device=device) for _ in range(2 * shape.layers)]
    plan = inject_kv.make_inject_plan(
        buffers[: shape.layers],
        buffers[shape.layers :],
        torch.ones(shape.layers, shape.head_dim, dtype=dtype, device=device),
        1e-6,
        torch.randn(4096, shape.head_dim, device=device),
    )
    kv = torch.randn(tokens, 2 * shape.layers * shape.heads * shape.head_dim, device=device).to(dtype)
    positions = torch.randint(0, 4096, (tokens,), device=device)
    slots = torch.randperm(shape.slots - 1, device=device)[:tokens] + 1
    commit_lens = torch.full((shape.bs,), shape.width, dtype=torch.int32, device=device)
    op = inject_kv.choose(device)
    return 2 * _nbytes(kv), lambda: op(kv, positions, slots, commit_lens, plan)


def _compact_kv(device, shape: Shape, dtype):
    row = (shape.heads, shape.head_dim)
    count = 2 * shape.target_layers
    buffers = [torch.zeros(shape.slots, *row, dtype=dtype, device=device) for _ in range(count)]
    table = compact_kv.make_kv_table(buffers)
    # Every second node of the window is accepted: all of the path but its root moves.
    path_len = shape.width // 2
    path = (torch.arange(path_len, device=device) * 2).repeat(shape.bs, 1)
    commit_lens = torch.full((shape.bs,), path_len, dtype=torch.int32, device=device)
    slots = (torch.randperm(shape.slots - 1, device=device)[: shape.bs * shape.width] + 1).view(shape.bs, -1)
    op = compact_kv.choose(device)
    size = 2 * shape.bs * (path_len - 1) * _nbytes(buffers[0][0]) * count
    return size, lambda: op(path, commit_lens, slots, table)


def run_kernel_bandwidth(as_json: bool) -> None:
    """Print the table, or JSON."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    ceiling = copy_ceiling(device)
    rows = measure(device, None if device == "cuda" else Shape(slots=4096), dtype)
    if as_json:
        print(json.dumps([row._asdict() | {"gb_s": row.gigabytes_per_second} for row in (ceiling, *rows)]))
        return
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU, torch twins"
    print(f"{name}; copy {ceiling.gigabytes_per_second:.0f} GB/s")
    for row in rows:
        share = 100 * row.gigabytes_per_second / ceiling.gigabytes_per_second
        print(f"{row.op:<14} {row.microseconds:9.1f} us {row.gigabytes_per_second:9.2f} GB/s {share:6.1f} %")
