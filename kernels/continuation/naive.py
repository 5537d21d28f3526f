"""Torch twin of the shift; what the CPU serves with under overlap scheduling."""

import torch

from sglang_dflash.types import Continuation


def continuation(packed: torch.Tensor, anchors: torch.Tensor, positions: torch.Tensor, count: int) -> Continuation:
    """What the host found to follow the tokens that it knew, from behind the anchor on.

    packed [bs, 1 + 2 * C] int64: how many tokens the host knew; C that may follow; the bit patterns of float64: their
    log-probabilities, each given those before it, -inf where there is none. anchors, positions [bs] int64, any stride:
    the last committed token and where it stands. -> ``Continuation`` of ``count`` tokens.

    A continuation whose token at the anchor's position is another has been refuted: nothing of it is left.
    """
    width = (packed.shape[1] - 1) // 2
    behind = (positions + 1 - packed[:, 0]).unsqueeze(1)
    last = packed.gather(1, behind.clamp(1, width)).squeeze(1)
    holds = (behind == 0) | ((behind > 0) & (behind <= width) & (last == anchors).unsqueeze(1))
    places = behind + torch.arange(count, device=packed.device)
    there = holds & (places >= 0) & (places < width)
    places = places.clamp(0, width - 1) + 1
    log_probs = packed.gather(1, places + width).view(torch.float64)
    return Continuation(
        packed.gather(1, places).masked_fill(~there, 0),
        log_probs.masked_fill(~there, -torch.inf),
    )
