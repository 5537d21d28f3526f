"""Choosing what is proposed, once, from the options."""

import importlib
from collections.abc import Sequence
from typing import Protocol

import torch

from sglang_dflash.engine.proposal.chain import ChainProposer
from sglang_dflash.engine.proposal.context import ChainOrContext, ContextChain
from sglang_dflash.engine.proposal.tree import TreeProposer
from sglang_dflash.errors import DFlashError
from sglang_dflash.types import Drafted, Proposal, Shape

_FIELD = "SGLANG_DFLASH_PROPOSER"


class Proposer(Protocol):
    """Makes the nodes that the target verifies out of what the draft says: values in, values out."""

    shape: Shape  # of every proposal
    candidates: int  # K, candidates that it wants per position; 0: the draft's path is enough

    def __call__(self, drafted: Drafted) -> Proposal: ...


def build_proposers(
    shapes: Sequence[Shape], block_size: int, branching: int, device: torch.device, lookup: str = "off"
) -> list[Proposer]:
    """Ours for each of ``shapes``; arguments as of ``build_proposer``."""

    def proposer(shape: Shape) -> Proposer:
        if shape.is_tree:
            return TreeProposer(shape.width, block_size, branching, device, beyond=lookup == "on")
        if shape.kind == "context":
            return ContextChain(shape.width)
        return ChainOrContext(shape.width) if lookup == "on" and shape.drafts else ChainProposer(shape.width)

    return [proposer(shape) for shape in shapes]


def build_proposer(
    name: str, block_size: int, width: int, branching: int, device: torch.device, lookup: str = "off"
) -> Proposer:
    """The draft's chain of ``width`` nodes, a tree of as many where ``branching`` > 1, or the proposer ``name``.

    ``name`` is "module:Class". The class is called with (chain, device); ``chain`` proposes the draft's first
    min(width, block size) tokens. lookup: ``on`` has the context's continuation compete with the draft, ``only``
    proposes nothing else; both may be deeper than the block.

    Raises:
        DFlashError: ``name`` cannot be imported, or does not propose ``width`` nodes.
    """
    if lookup == "only":
        return ContextChain(width)
    if branching > 1:
        return TreeProposer(width, block_size, branching, device, beyond=lookup == "on")
    if lookup == "on":
        return ChainOrContext(width)
    chain = ChainProposer(min(width, block_size))
    if not name:
        return chain
    proposer = _find(name)(chain, device)
    if proposer.shape.width != width:
        problem = f"{name} proposes {proposer.shape.width} nodes, --speculative-num-draft-tokens says {width}"
        raise DFlashError(_FIELD, problem, "let the two agree")
    return proposer


def _find(name: str) -> type:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise DFlashError(_FIELD, f"{name}: {error}", "give module:Class on PYTHONPATH") from error
