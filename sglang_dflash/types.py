"""What the steps of a round hand to each other: plain values, every field with its shape.

``bs`` requests, block size ``B`` (tokens of a draft pass), verify width ``W`` (nodes per request, the anchor
included), path length ``D`` (deepest possible node + 1). A round writes a window of ``S = max(B, W)`` KV slots.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch


class Shape(NamedTuple):
    """What a round verifies for every request: nothing drafted, a chain, a tree, or what the context says follows."""

    kind: Literal["plain", "chain", "tree", "context"]
    width: int  # W
    path_len: int  # D; W but for a tree

    @classmethod
    def plain(cls) -> "Shape":
        """The anchor alone: no draft pass."""
        return cls("plain", 1, 1)

    @classmethod
    def chain(cls, width: int) -> "Shape":
        """The anchor and ``width - 1`` drafts; one node is plain."""
        return cls("chain", width, width) if width > 1 else cls.plain()

    @classmethod
    def tree(cls, width: int, path_len: int) -> "Shape":
        """Nodes with parents, none deeper than ``path_len - 1``."""
        return cls("tree", width, path_len)

    @classmethod
    def context(cls, width: int) -> "Shape":
        """The anchor and a continuation of ``width - 1`` tokens; one node is plain."""
        return cls("context", width, width) if width > 1 else cls.plain()

    @property
    def drafts(self) -> bool:
        """True where a draft pass is run."""
        return self.kind in ("chain", "tree")

    @property
    def is_tree(self) -> bool:
        """True where the target is told a node's parent."""
        return self.kind == "tree"

    @property
    def label(self) -> str:
        """``plain``, ``chain-16``, ``tree-24``, ``context-32``: the kind and the width."""
        return self.kind if self.kind == "plain" else f"{self.kind}-{self.width}"


class BlockInputs(NamedTuple):
    """Inputs of one draft pass over ``[anchor, mask x (B - 1)]`` per request, and the round's window of slots."""

    ids: torch.Tensor  # [bs * B] int64
    positions: torch.Tensor  # [bs * B] int64
    slots: torch.Tensor  # [bs * S] int64, KV slots of the window


class Continuation(NamedTuple):
    """What may follow the anchor because it did so earlier in the request's context; of a fixed length C."""

    tokens: torch.Tensor  # [bs, C] int64, 0 where there is none
    log_probs: torch.Tensor  # [bs, C] float64, of each given those before it; -inf where there is none


class Drafted(NamedTuple):
    """What a draft pass says about every position of its block; candidates only where a proposer wants them."""

    tokens: torch.Tensor  # [bs, B] int64, the anchor and the draft's path after it
    positions: torch.Tensor  # [bs, B] int64
    candidates: torch.Tensor | None = None  # [bs, B - 1, K] int64, most likely first, none twice
    log_probs: torch.Tensor | None = None  # [bs, B - 1, K] float64, normalised over the whole vocabulary
    transitions: torch.Tensor | None = None  # [bs, B - 1, K, K] float64: pair scores (predecessor, candidate), if any
    continuation: Continuation | None = None  # where the context is looked up and says anything


class Proposal(NamedTuple):
    """The nodes that the target verifies: a tree, of which the chain is one value.

    Node 0 is the anchor (the root). Every node follows its parent: ``parents[b, i] < i``.
    A node ``i > 0`` whose parent is -1 is padding and can never be accepted.
    """

    tokens: torch.Tensor  # [bs, W] int64, contiguous
    parents: torch.Tensor | None  # [bs, W] int32, root -1; None for a chain (parent of i is i - 1)
    positions: torch.Tensor  # [bs, W] int64, contiguous, prefix length + depth


class Acceptance(NamedTuple):
    """The outcome of one verify pass; all tensors are allocated by the caller and overwritten.

    ``commit_lens`` counts KV rows kept (anchor + correct drafts) and tokens emitted (correct
    drafts + bonus token) alike.
    """

    path: torch.Tensor  # [bs, D] int64, node of the d-th accepted depth, path[:, 0] = 0, padded with -1
    commit_lens: torch.Tensor  # [bs] int32
    bonus: torch.Tensor  # [bs] int64, the target's token after the last accepted node
    emitted: torch.Tensor  # [bs, D] int64, accepted draft tokens, then the bonus token, then 0
    new_prefix_lens: torch.Tensor  # [bs] int64, prefix_lens + commit_lens


class Features(NamedTuple):
    """Context features of tokens whose target KV was just written.

    With ``commit_lens`` the tokens are [bs] windows of equal width, of which the first
    ``commit_lens[b]`` are committed; without, all of them are.
    """

    hidden: torch.Tensor  # [tokens, K * hidden]
    positions: torch.Tensor  # [tokens] int64
    slots: torch.Tensor  # [tokens] int64
    commit_lens: torch.Tensor | None  # [bs] int32


class RoundRecord(NamedTuple):
    """What one decode round did, on the host; where nobody observes rounds there is none."""

    requests: int
    shape: Shape
    correct_drafts: tuple[int, ...]  # by request; those that ended while the round ran are left out
    stages: Mapping[str, float]  # milliseconds
    period: float | None  # milliseconds since the end of the round before; None for the first
    expected: tuple[float, float] | None = None  # tokens and milliseconds that a policy foresaw, where one did


def empty_acceptance(bs: int, path_len: int, device: torch.device | str) -> Acceptance:
    """Uninitialised ``Acceptance`` for ``bs`` requests and paths of ``path_len`` nodes."""

    def empty(*shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    return Acceptance(
        path=empty(bs, path_len),
        commit_lens=empty(bs, dtype=torch.int32),
        bonus=empty(bs),
        emitted=empty(bs, path_len),
        new_prefix_lens=empty(bs),
    )


def empty_block_inputs(bs: int, block_size: int, slots: int, device: torch.device | str) -> BlockInputs:
    """Uninitialised ``BlockInputs`` for ``bs`` requests with windows of ``slots`` KV slots."""
    sizes = (bs * block_size, bs * block_size, bs * slots)
    return BlockInputs(*(torch.empty(size, dtype=torch.int64, device=device) for size in sizes))
