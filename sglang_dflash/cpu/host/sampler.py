"""SGLang's filtered draw on a host, over the tokens that the filters keep instead of a sorted vocabulary."""

import functools
from typing import Any

import torch
from sglang.srt.layers import sampler

from sglang_dflash.host.contract import Touch

_SAMPLER = "sglang.srt.layers.sampler"
TOUCHES = (
    Touch(
        f"{_SAMPLER}:top_k_top_p_min_p_sampling_from_probs_torch",
        "replaced: sorts the whole vocabulary, which for a batch takes longer than a small model's pass",
        "SGLang sorts what can be kept",
        (
            "probs",
            "top_ks",
            "top_ps",
            "min_ps",
            "need_min_p_sampling",
            "sampling_seed",
            "positions",
            "return_filtered_probs",
            "max_top_k",
        ),
    ),
    Touch(
        f"{_SAMPLER}:multinomial_with_seed",
        "draws for a seed, by rank",
        "never: public",
        ("logprobs", "seed", "positions"),
    ),
)


def draw_from_kept(kept_tokens) -> None:
    """Let the sampler draw from ``kept_tokens(probs, top_ks, top_ps, min_ps)``, where it needs no more than a token."""
    original = sampler.top_k_top_p_min_p_sampling_from_probs_torch
    if getattr(original, "_draws_from_kept", False):
        return

    @functools.wraps(original)
    def draw(probs, top_ks, top_ps, min_ps, need_min_p_sampling, sampling_seed, positions, **more):
        if more.get("return_filtered_probs") or (need_min_p_sampling and sampling_seed is not None):
            # It hands the sorted row on; and it refuses seeds with min-p.
            return original(probs, top_ks, top_ps, min_ps, need_min_p_sampling, sampling_seed, positions, **more)
        kept, ids = kept_tokens(probs, top_ks, top_ps, min_ps if need_min_p_sampling else None)
        if sampling_seed is None:
            index = torch.multinomial(kept, num_samples=1)
        else:
            index = sampler.multinomial_with_seed(kept.double().log_(), sampling_seed, positions)
        return ids.gather(1, index).view(-1).to(torch.int32)

    replacement: Any = draw
    replacement._draws_from_kept = True
    sampler.top_k_top_p_min_p_sampling_from_probs_torch = replacement
