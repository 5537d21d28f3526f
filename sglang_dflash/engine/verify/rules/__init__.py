"""Rules of a node: what plain decoding does to logits before it chooses, done at every node of a proposal."""

from sglang_dflash.engine.verify.rules.bias import LogitBias
from sglang_dflash.engine.verify.rules.rule import Rule, Rules

__all__ = ["Rule", "Rules", "build_rules"]


def build_rules() -> Rules:
    """Every rule, in the order in which plain decoding applies them."""
    return Rules((LogitBias(),))
