"""The target's input embedding as the draft uses it. Chosen once from what target and checkpoint have."""

from collections.abc import Callable

import torch


def build_embedding(target_model, mask_token_id: int, mask_row: torch.Tensor | None) -> Callable:
    """ids [tokens] int64 -> embeddings [tokens, hidden].

    Some targets scale what a DFlash draft sees; a trained ``mask_row`` [hidden] takes the mask token's place.
    """
    embed = target_model.get_input_embeddings()
    embed = getattr(embed, "base_layer", embed)
    if mask_row is not None:
        embed = _with_mask_row(embed, mask_token_id, mask_row)
    scale = 1.0
    if hasattr(target_model, "get_dflash_noise_embedding_scale"):
        scale = float(target_model.get_dflash_noise_embedding_scale())
    return embed if scale == 1.0 else lambda ids: embed(ids) * scale


def _with_mask_row(embed: Callable, mask_token_id: int, mask_row: torch.Tensor) -> Callable:
    def masked(ids: torch.Tensor) -> torch.Tensor:
        embedded = embed(ids)
        return torch.where((ids == mask_token_id).unsqueeze(-1), mask_row.to(embedded.dtype), embedded)

    return masked
