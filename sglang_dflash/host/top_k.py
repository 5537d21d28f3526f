"""The k best of long rows: on a GPU FlashInfer's radix selection, which SGLang installs and its own drafts use.

torch's reads a row of logits several times, which for a draft with candidates costs more than all else in its head.
"""

from collections.abc import Callable
from functools import partial

import torch


def choose_top_k(device_type: str) -> Callable:
    """(rows [n, width], k) -> the k largest of each, descending, [n, k], and their columns [n, k]."""
    if device_type != "cuda":
        return torch.topk
    from flashinfer import top_k

    return partial(top_k, sorted=True, deterministic=True)
