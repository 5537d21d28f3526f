"""Choosing what is proposed, once, from the options."""

import importlib

import torch

from sglang_dflash.engine.proposal.chain import ChainProposer
from sglang_dflash.errors import DFlashError


def build_proposer(name: str, block_size: int, device: torch.device):
    """The draft's chain, or the proposer that ``name`` ("module:Class") wraps around it.

    A proposer is called with (batch, block, drafted) and returns a ``Proposal`` of fixed width. It has
    ``verify_width`` (at most the block size), ``path_len`` (deepest node + 1) and ``is_tree``.

    Raises:
        DFlashError: ``name`` cannot be imported.
    """
    chain = ChainProposer(block_size, device)
    if not name:
        return chain
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)(chain, device)
    except (ImportError, AttributeError, ValueError) as error:
        raise DFlashError("SGLANG_DFLASH_PROPOSER", f"{name}: {error}", "give module:Class on PYTHONPATH") from error
