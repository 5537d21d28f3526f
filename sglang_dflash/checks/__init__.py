"""Checks of a target and its draft that need no weights, run before any are loaded."""

from sglang_dflash.checks.mask import mask_token_id, read_vocabulary
from sglang_dflash.checks.pair import check_pair
from sglang_dflash.checks.tensors import check_tensors, read_tensors

__all__ = ["check_pair", "check_tensors", "mask_token_id", "read_tensors", "read_vocabulary"]
