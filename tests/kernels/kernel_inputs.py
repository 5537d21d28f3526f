"""Random inputs for the ops, with poison around and inside whatever an op must write."""

import random
from typing import NamedTuple

import torch

from sglang_dflash.kernels.compact_kv import make_kv_table
from sglang_dflash.kernels.inject_kv import InjectPlan, make_inject_plan
from sglang_dflash.kernels.qk_norm_rope import HeadNorms
from sglang_dflash.kernels.selected_path import Transform
from sglang_dflash.kernels.window_rows import Window
from sglang_dflash.types import Acceptance, BlockInputs, Continuation

BATCH_SIZES = (1, 3, 17)
WINDOWS = (Window(7, 1, 2), Window(40, 4, 5), Window(1100, 16, 16), Window(9000, 1, 16))
POISON, BOOL_POISON = -7_777_777, 77
GUARD = 64


class Guarded:
    """Tensors that lie in poisoned memory, and are poison themselves until written."""

    def __init__(self, device: str):
        self.device = device
        self._arenas: list[tuple[torch.Tensor, int]] = []

    def empty(self, *shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        """A contiguous poisoned tensor with ``GUARD`` poisoned elements before and after it."""
        size = 1
        for n in shape:
            size *= n
        poison = float("nan") if dtype.is_floating_point else POISON
        if dtype == torch.bool:
            arena = torch.full((size + 2 * GUARD,), BOOL_POISON, dtype=torch.uint8, device=self.device).view(torch.bool)
        else:
            arena = torch.full((size + 2 * GUARD,), poison, dtype=dtype, device=self.device)
        self._arenas.append((arena, size))
        return arena[GUARD : GUARD + size].view(shape)

    def copy(self, value: torch.Tensor) -> torch.Tensor:
        """``value`` between guards."""
        return self.empty(*value.shape, dtype=value.dtype).copy_(value)

    def check(self) -> None:
        """Nothing outside the tensors was written."""
        for arena, size in self._arenas:
            raw = arena.view(torch.uint8) if arena.dtype == torch.bool else arena
            fresh = BOOL_POISON if arena.dtype == torch.bool else POISON
            for guard in (raw[:GUARD], raw[GUARD + size :]):
                clean = guard.isnan() if arena.dtype.is_floating_point else guard == fresh
                assert bool(clean.all()), "an op wrote outside its output"


def block_case(bs: int, window: int, device: str, seed: int):
    """-> (arguments of prepare_block without ``out``, guards)."""
    torch.manual_seed(seed)
    guard = Guarded(device)
    rows, columns = bs + 5, 97
    arguments = (
        guard.copy(torch.randint(0, 111, (bs,))),
        guard.copy(torch.randint(0, columns - window + 1, (bs,))),
        guard.copy(torch.randperm(rows)[:bs]),
        guard.copy(torch.randint(1, 2**30, (rows, columns), dtype=torch.int32)),
        110,
    )
    return arguments, guard


def empty_block(bs: int, block_size: int, window: int, guard: Guarded) -> BlockInputs:
    """Poisoned ``BlockInputs``."""
    return BlockInputs(*(guard.empty(bs * size) for size in (block_size, block_size, window)))


def window_case(bs: int, window: Window, columns: int, device: str):
    """-> (arguments of window_rows, guards); the last request's block ends with its row."""
    torch.manual_seed(bs)
    guard = Guarded(device)
    prefix_lens = torch.randint(0, columns - window.block + 1, (bs,))
    prefix_lens[-1] = columns - window.block
    arguments = (
        guard.copy(torch.randint(1, 2**30, (bs + 4, columns), dtype=torch.int32)),
        guard.copy(torch.randperm(bs + 4)[:bs]),
        guard.copy(prefix_lens),
        window,
        guard.empty(bs + 4, columns, dtype=torch.int32),
        guard.empty(bs),
    )
    return arguments, guard


def random_parents(width: int, rng: random.Random, padded: bool) -> list[int]:
    """Parents of a random tree in which some trailing nodes may be padding."""
    used = rng.randint(1, width) if padded else width
    reach = rng.choice((1, 2, 4, width))
    return [-1] + [rng.randint(max(0, i - reach), i - 1) if i < used else -1 for i in range(1, width)]


def depth_of(parents: list[int]) -> int:
    """Depth of the deepest node."""
    depths = [0]
    for parent in parents[1:]:
        depths.append(depths[parent] + 1 if parent >= 0 else 0)
    return max(depths)


def links_case(bs: int, width: int, device: str):
    """-> (parents, children and siblings to write, guards)."""
    rng, guard = random.Random(width), Guarded(device)
    rows = [random_parents(width, rng, padded=True) for _ in range(bs)]
    parents = guard.copy(torch.tensor(rows, dtype=torch.int32))
    return parents, *(guard.empty(bs, width, dtype=torch.int32) for _ in range(2)), guard


def mask_case(bs: int, width: int, device: str, longest: int = 30):
    """-> (parents, prefix lengths, mask to write, guards)."""
    rng, guard = random.Random(width + longest), Guarded(device)
    rows = [random_parents(width, rng, padded=True) for _ in range(bs)]
    prefix_lens = torch.tensor([rng.randrange(longest + 1) for _ in range(bs)])
    out = guard.empty(int(((prefix_lens + width) * width).sum()), dtype=torch.bool)
    return guard.copy(torch.tensor(rows, dtype=torch.int32)), guard.copy(prefix_lens), out, guard


def accept_case(bs: int, width: int, vocab: int, tree: bool, device: str, seed: int):
    """-> (arguments of accept without ``out``, path length, guards); few tokens, so that paths are long."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    guard = Guarded(device)
    parents = [random_parents(width, rng, padded=seed % 2 == 1) for _ in range(bs)] if tree else None
    path_len = max(map(depth_of, parents)) + 1 if tree else width
    arguments = (
        guard.copy(torch.randint(0, vocab, (bs, width))),
        guard.copy(torch.randint(0, vocab, (bs, width))),
        guard.copy(torch.tensor(parents, dtype=torch.int32)) if tree else None,
        guard.copy(torch.randint(0, 2**40, (bs,))),
    )
    return arguments, path_len, guard


def empty_accept(bs: int, path_len: int, guard: Guarded) -> Acceptance:
    """Poisoned ``Acceptance``."""
    return Acceptance(
        path=guard.empty(bs, path_len),
        commit_lens=guard.empty(bs, dtype=torch.int32),
        bonus=guard.empty(bs),
        emitted=guard.empty(bs, path_len),
        new_prefix_lens=guard.empty(bs),
    )


QK_CASES = (
    {"tokens": 1, "heads": 1, "kv_heads": 1, "head_dim": 16},
    {"heads": 8, "kv_heads": 2, "head_dim": 128},
    {"heads": 3, "kv_heads": 3, "head_dim": 48, "rotary_dim": 24},
    {"rotary_dim": 16, "offset": 1.0},
    {"interleaved": True},
    {"interleaved": True, "head_dim": 80, "rotary_dim": 12},
    {"dtype": torch.bfloat16},
    {"dtype": torch.float16, "offset": 1.0},
)


def qk_case(
    device: str,
    *,
    tokens: int = 7,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 32,
    rotary_dim: int | None = None,
    interleaved: bool = False,
    offset: float = 0.0,
    dtype: torch.dtype = torch.float32,
):
    """-> (arguments of qk_norm_rope, guards)."""
    torch.manual_seed(head_dim)
    guard = Guarded(device)
    weights = [guard.copy((torch.rand(head_dim) + 0.5 - offset).to(dtype)) for _ in range(2)]
    arguments = (
        guard.copy(torch.randn(tokens, (heads + 2 * kv_heads) * head_dim).to(dtype)),
        guard.copy(torch.randint(0, 50, (tokens,))),
        HeadNorms(heads, kv_heads, head_dim, *weights, offset, 1e-6),
        guard.copy(torch.randn(50, rotary_dim or head_dim)),
        interleaved,
    )
    return arguments, guard


CONVOLUTION_CASES = (
    {"bs": 1, "block": 2, "taps": 2, "groups": 3, "size": 5},
    {"bs": 3, "block": 5, "taps": 3, "groups": 8, "size": 16},
    {"bs": 2, "block": 16, "taps": 4, "groups": 11, "size": 64},
    {"bs": 2, "block": 3, "taps": 5, "groups": 4, "size": 8},
)


def convolution_case(bs: int, block: int, taps: int, groups: int, size: int, device: str, dtype=torch.float32):
    """-> (arguments of convolve_blocks, guards); the kernels are one half of a wider matrix."""
    torch.manual_seed(size)
    guard = Guarded(device)
    dynamic = guard.copy(torch.randn(bs * block, 2 * taps * groups).to(dtype))
    hidden = guard.copy(torch.randn(bs * block, groups * size).to(dtype))
    base = guard.copy(torch.randn(taps, groups * size).to(dtype))
    return (hidden, dynamic[:, taps * groups :], base, block), guard


TRANSFORMS = (Transform(1.0, None), Transform(0.2, 20.0))


def path_case(bs: int, positions: int, k: int, rank: int, transform: Transform, device: str, dtype=torch.float32):
    """-> (arguments of selected_path, guards); anchors are a column of the blocks' ids."""
    torch.manual_seed(rank)
    guard, vocab = Guarded(device), 61
    candidates = torch.stack([torch.randperm(vocab)[:k] for _ in range(bs * positions)])
    arguments = (
        guard.copy(torch.randint(0, vocab, (bs, positions + 1)))[:, 0],
        guard.copy(candidates.view(bs, positions, k)),
        guard.copy(torch.randn(bs, positions, k).sort(descending=True).values.to(dtype)),
        guard.copy(torch.randn(bs, positions, rank).to(dtype)),
        guard.copy(torch.randn(vocab, rank).to(dtype)),
        guard.copy(torch.randn(vocab, rank).to(dtype)),
        transform,
    )
    return arguments, guard


def tree_case(bs, positions, k, pairs, device, seed):
    """-> (arguments of best_tree but the width, guards); ``pairs``: a continuation depends on the token before."""
    torch.manual_seed(seed)
    guard = Guarded(device)
    candidates = torch.stack([torch.randperm(99)[:k] for _ in range(bs * positions)]).view(bs, positions, k)
    shape = (bs, positions, k, k) if pairs else (bs, positions, k)
    scores = 2 * torch.randn(shape, dtype=torch.float64)
    if pairs:
        scores[:, 0] = scores[:, 0, :1]  # all predecessors of the first position are the anchor
    # As of a vocabulary with one more token.
    log_probs, order = (scores - scores.logsumexp(-1, keepdim=True).logaddexp(torch.zeros(()))).sort(
        -1, descending=True
    )
    arguments = (
        guard.copy(torch.randint(0, 99, (bs, positions + 1)))[:, 0],
        guard.copy(candidates),
        guard.copy(log_probs),
        guard.copy(order) if pairs else None,
    )
    return arguments, guard


def context_case(candidates, length, device, seed):
    """A continuation beside ``candidates`` [bs, S, K]: agrees with some of them at first, ends where it likes."""
    rng, (bs, positions, k) = random.Random(seed), candidates.shape
    guard = Guarded(device)
    tokens, steps = torch.randint(0, 99, (bs, length)), -torch.rand(bs, length, dtype=torch.float64)
    for b in range(bs):
        for d in range(rng.randint(0, min(length, positions))):
            tokens[b, d] = candidates[b, d, rng.randrange(k)]
        steps[b, rng.randint(0, length) :] = -torch.inf
    return Continuation(guard.copy(tokens), guard.copy(steps)), guard


def continuation_case(bs, width, count, device, seed):
    """-> (arguments of continuation but the count, guards); anchors stand ahead of what the host knew."""
    rng, guard = random.Random(seed), Guarded(device)
    known = torch.tensor([rng.randint(1, 500) for _ in range(bs)])
    ahead = torch.tensor([rng.choice((0, 0, 1, rng.randint(0, width), width + 1, -1)) for _ in range(bs)])
    tokens, steps = torch.randint(0, 99, (bs, width)), -torch.rand(bs, width, dtype=torch.float64)
    for b in range(bs):
        steps[b, rng.randint(0, width) :] = -torch.inf
    packed = torch.cat((known.unsqueeze(1), tokens, steps.view(torch.int64)), 1)
    anchors = tokens.gather(1, (ahead - 1).clamp(0, width - 1).unsqueeze(1))
    anchors += torch.tensor([[rng.choice((0, 0, 1))] for _ in range(bs)])
    positions = (known - 1 + ahead).unsqueeze(1)
    arguments = (
        guard.copy(packed),
        guard.copy(anchors.repeat(1, 2))[:, 0],
        guard.copy(positions.repeat(1, 3))[:, 0],
    )
    return arguments, guard


class InjectCase(NamedTuple):
    """Arguments of inject_kv."""

    kv: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    commit_lens: torch.Tensor | None
    plan: InjectPlan


def inject_case(
    device: str,
    seed: int,
    *,
    bs: int = 3,
    width: int = 5,
    layers: int = 2,
    heads: int = 2,
    head_dim: int = 32,
    rotary_dim: int | None = None,
    interleaved: bool = False,
    norm: bool = True,
    commits: bool = True,
    kv_dtype: torch.dtype = torch.float32,
    cache_dtype: torch.dtype = torch.float32,
    packed: bool = False,
) -> tuple[InjectCase, Guarded]:
    """Random features, distinct slots > 0, and cache buffers that hold noise.

    ``packed``: a layer's keys and values share one buffer [slots, 2, heads, head_dim].
    """
    torch.manual_seed(seed)
    guard = Guarded(device)
    tokens, num_slots, max_position = bs * width, bs * width + 30, 50
    shape = (num_slots, heads, head_dim)
    if packed:
        pairs = [guard.copy(torch.randn(num_slots, 2, *shape[1:]).to(cache_dtype)) for _ in range(layers)]
        keys, values = [pair[:, 0] for pair in pairs], [pair[:, 1] for pair in pairs]
    else:
        keys = [guard.copy(torch.randn(shape).to(cache_dtype)) for _ in range(layers)]
        values = [guard.copy(torch.randn(shape).to(cache_dtype)) for _ in range(layers)]
    norm_weights = guard.copy((torch.rand(layers, head_dim) + 0.5).to(kv_dtype)) if norm else None
    cos_sin = guard.copy(torch.randn(max_position, rotary_dim or head_dim))
    case = InjectCase(
        kv=guard.copy(torch.randn(tokens, layers * 2 * heads * head_dim).to(kv_dtype)),
        positions=guard.copy(torch.randint(0, max_position, (tokens,))),
        slots=guard.copy(torch.randperm(num_slots - 1)[:tokens] + 1),
        commit_lens=guard.copy(torch.randint(1, width + 1, (bs,), dtype=torch.int32)) if commits else None,
        plan=make_inject_plan(keys, values, norm_weights, 1e-6, cos_sin, interleaved),
    )
    return case, guard


def compact_case(bs: int, width: int, row_shapes, dtype: torch.dtype, device: str, seed: int):
    """-> (path, commit_lens, window_slots, table, guards): rising random paths, windows interleaved."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    guard = Guarded(device)
    path_len = min(width, 9)
    num_slots = bs * width + 20
    path, commits = [], []
    for _ in range(bs):
        commit = rng.randint(1, path_len)
        nodes = sorted(rng.sample(range(1, width), commit - 1))
        path.append([0] + nodes + [-1] * (path_len - commit))
        commits.append(commit)
    slots = torch.randperm(num_slots - 1)[: bs * width] + 1
    # Every other buffer is one half of a wider one, as where keys and values are packed together.
    buffers = [
        guard.copy(torch.randn(num_slots, 1 + i % 2, *shape).to(dtype))[:, -1] for i, shape in enumerate(row_shapes)
    ]
    return (
        guard.copy(torch.tensor(path)),
        guard.copy(torch.tensor(commits, dtype=torch.int32)),
        guard.copy(slots.view(bs, width)),
        make_kv_table(buffers),
        guard,
    )
