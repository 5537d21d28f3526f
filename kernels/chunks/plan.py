"""How a recurrent layer's prompts fall into chunks; made once per pass, on the host, for layers of any kind."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

CHUNK = 64


class Keep(NamedTuple):
    """A state to keep on the way: of request ``request`` after ``chunks`` whole chunks, in ``slot``."""

    request: int
    chunks: int
    slot: int


class ChunkPlan(NamedTuple):
    """How the tokens of one pass fall into chunks; made once, shared by all layers.

    A turn takes the next chunk of every request that has one. Requests are ordered by length, longest first, so
    a turn's requests are a prefix of that order, and its chunks follow each other.
    """

    order: torch.Tensor  # [bs] int64, requests, longest first
    turns: tuple[int, ...]  # chunks in each turn
    source: torch.Tensor  # [chunks * C] int64, the token at each place; 0 at padding
    place: torch.Tensor  # [T] int64, each token's place
    padding: torch.Tensor | None  # [chunks, C] bool, None where there is none
    ancestors: torch.Tensor  # [1, C, C] bool, the lower triangle
    keep: dict[int, tuple[torch.Tensor, torch.Tensor]]  # turn -> rows of the order, slots: kept before the turn


def plan_chunks(bounds: list[int], device: torch.device, keep: Sequence[Keep] = (), chunk: int = CHUNK) -> ChunkPlan:
    """Request r's tokens are rows ``bounds[r]:bounds[r + 1]``; a chunk is ``chunk`` tokens, or fewer if all fit."""
    lens = [end - start for start, end in zip(bounds[:-1], bounds[1:], strict=True)]
    width = min(chunk, max(8, -(-max(lens) // 8) * 8))
    order = sorted(range(len(lens)), key=lambda r: -lens[r])
    counts = [-(-lens[r] // width) for r in order]
    turns = [sum(count > turn for count in counts) for turn in range(counts[0])]
    source = torch.zeros(sum(turns) * width, dtype=torch.int64)
    padding = torch.ones(sum(turns) * width, dtype=torch.bool)
    place = torch.empty(bounds[-1], dtype=torch.int64)
    offset = 0
    for turn, active in enumerate(turns):
        for request in order[:active]:
            first = bounds[request] + turn * width
            n = min(width, bounds[request + 1] - first)
            source[offset : offset + n] = torch.arange(first, first + n)
            place[first : first + n] = torch.arange(offset, offset + n)
            padding[offset : offset + n] = False
            offset += width
    kept: dict[int, tuple[list[int], list[int]]] = {}
    for request, chunks, slot in keep:
        rows, slots = kept.setdefault(chunks, ([], []))
        rows.append(order.index(request))
        slots.append(slot)
    return ChunkPlan(
        torch.tensor(order, device=device),
        tuple(turns),
        source.to(device),
        place.to(device),
        padding.view(-1, width).to(device) if padding.any() else None,
        torch.ones(1, width, width, dtype=torch.bool, device=device).tril_(),
        {turn: (_numbers(rows, device), _numbers(slots, device)) for turn, (rows, slots) in kept.items()},
    )


def _numbers(values: list[int], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, device=device)
