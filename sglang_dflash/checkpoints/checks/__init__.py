"""The rules for a target and its draft; they need no weights, and run before any are loaded."""

from sglang_dflash.checkpoints.checks.mask import mask_token_id
from sglang_dflash.checkpoints.checks.tensors import check_tensors, read_tensors

__all__ = ["check_tensors", "mask_token_id", "read_tensors"]
