"""Rules of a node: what plain decoding does to logits before it chooses, done at every node of a proposal."""

import torch

from sglang_dflash.engine.verify.rules.bias import LogitBias
from sglang_dflash.engine.verify.rules.penalties import Penalties
from sglang_dflash.engine.verify.rules.processors import Processors
from sglang_dflash.engine.verify.rules.rule import Rule, Rules

__all__ = ["Rule", "Rules", "build_rules"]


def build_rules(vocab_size: int, device: torch.device, grammars: Rule | None = None) -> Rules:
    """Every rule, in the order in which plain decoding applies them.

    vocab_size: the target's; device: that of its logits; grammars: the rule of vocabulary masks, if any.
    """
    masks = () if grammars is None else (grammars,)
    return Rules((Penalties(vocab_size, device), *masks, LogitBias(), Processors()))
