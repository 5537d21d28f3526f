"""The input embedding as the draft uses it. Chosen once from what target and checkpoint have."""

from collections.abc import Callable

import torch

from sglang_dflash.checkpoints.checks.targets import input_embedding


def build_embedding(model, mask_token_id: int, mask_row: torch.Tensor | None, draft_scale: float = 1.0) -> Callable:
    """ids [tokens] int64 -> embeddings [tokens, hidden] by ``model``'s table, the target's or the draft's own.

    Some targets scale what a DFlash draft sees, some drafts what they are given (``draft_scale``); a trained
    ``mask_row`` [hidden] takes the mask token's place.
    """
    embed = input_embedding(model)
    embed = getattr(embed, "base_layer", embed)
    if mask_row is not None:
        embed = _with_mask_row(embed, mask_token_id, mask_row)
    scale = draft_scale
    if hasattr(model, "get_dflash_noise_embedding_scale"):
        scale *= float(model.get_dflash_noise_embedding_scale())
    return embed if scale == 1.0 else lambda ids: embed(ids) * scale


def _with_mask_row(embed: Callable, mask_token_id: int, mask_row: torch.Tensor) -> Callable:
    def masked(ids: torch.Tensor) -> torch.Tensor:
        embedded = embed(ids)
        return torch.where((ids == mask_token_id).unsqueeze(-1), mask_row.to(embedded.dtype), embedded)

    return masked
