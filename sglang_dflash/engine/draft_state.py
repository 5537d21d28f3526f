"""What the scheduler carries from one round to the next."""

import functools

import torch

from sglang_dflash.host.widths import window_width
from sglang_dflash.host.worker_api import DFlashDraftInputV2


@functools.cache
def _empty(rows: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """[rows, 0]: fields that the parent type carries for other algorithms, made once per batch size."""
    return torch.empty((rows, 0), dtype=dtype, device=device)


class DraftState(DFlashDraftInputV2):
    """Anchors (bonus tokens) and prefix lengths of the next round.

    The parent reserves KV slots ahead of the round and follows requests that join or leave the batch.
    """

    def prepare_for_decode(self, batch) -> None:
        """Reserve the slots of the next rounds' windows."""
        with window_width():
            super().prepare_for_decode(batch)

    @classmethod
    def after(cls, bonus_tokens: torch.Tensor, prefix_lens: torch.Tensor) -> "DraftState":
        """State after a pass: bonus_tokens [bs] int64, prefix_lens [bs] int64."""
        bs, device = bonus_tokens.numel(), bonus_tokens.device
        return cls(
            topk_p=_empty(bs, torch.float32, device),
            topk_index=_empty(bs, torch.int64, device),
            bonus_tokens=bonus_tokens,
            new_seq_lens=prefix_lens,
            hidden_states=_empty(bs, torch.float16, device),
        )
