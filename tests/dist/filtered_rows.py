"""Temperature, top-k, top-p and min-p as SGLang 0.5.23 applies them, and sampling by inverse CDF.

A served round samples with SGLang's own sampler; this states the same distribution for tests to enumerate.
"""

import torch


def filtered_probs(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
) -> torch.Tensor:
    """The distribution that is sampled, [R, V] in vocabulary order, rows summing to 1.

    logits [R, V] floating; temperature [R] > 0; top_k [R] int32 >= 1; top_p [R] in (0, 1]; min_p
    [R] in [0, 1). All filters look at the unfiltered softmax of logits / temperature, sorted
    downwards: a token stays if its rank is below top_k, if the mass of the tokens before it is at
    most top_p, and if it has at least min_p times the largest probability. Ties are ranked by
    token id.
    """
    kept, token_ids = _sorted_weights(logits, temperature, top_k, top_p, min_p)
    probs = torch.zeros_like(kept).scatter_(1, token_ids, kept)
    return probs / probs.sum(1, keepdim=True)


def sample_rows(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
    uniforms: torch.Tensor,
) -> torch.Tensor:
    """Draw one token per row, [R] int64: arguments as in ``filtered_probs``, uniforms [R] in [0, 1).

    Inverse CDF over the kept tokens from the most to the least probable: the result is the first
    token whose cumulated weight exceeds uniform x total weight. The same uniform gives the same token.
    """
    kept, token_ids = _sorted_weights(logits, temperature, top_k, top_p, min_p)
    cumulated = kept.cumsum(1)
    threshold = uniforms.to(kept.dtype).unsqueeze(1) * cumulated[:, -1:]
    # Rounding can lift the threshold to the total itself; the last kept token is meant then.
    last = (kept > 0).sum(1, keepdim=True) - 1
    chosen = (cumulated <= threshold).sum(1, keepdim=True).clamp_(max=last)
    return token_ids.gather(1, chosen).squeeze(1)


def _sorted_weights(logits, temperature, top_k, top_p, min_p) -> tuple[torch.Tensor, torch.Tensor]:
    """Unnormalised kept probabilities [R, V], most probable first, and their token ids [R, V]."""
    probs = (logits / temperature.to(logits.dtype).unsqueeze(1)).softmax(1)
    probs, token_ids = probs.sort(dim=1, descending=True, stable=True)
    ranks = torch.arange(logits.shape[1])
    mass_before = probs.cumsum(1) - probs
    kept = ranks < top_k.unsqueeze(1)
    kept &= mass_before <= top_p.unsqueeze(1)
    kept &= probs >= probs[:, :1] * min_p.unsqueeze(1)
    return probs * kept, token_ids
