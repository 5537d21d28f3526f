"""Top-k, top-p and min-p sampling without sorting a whole vocabulary by a slow sort.

SGLang's host version sorts every row of probabilities with their indices, draws among them by rank, and maps the rank
back to a token. Most tokens are too unlikely to be kept whatever their order: the others alone are sorted, as integers
that hold probability and token, which numpy sorts with vector instructions. Kept tokens, their order and hence what a
seed draws are those of the full sort; equal probabilities are in the order of their ids, which SGLang's sort leaves
open.
"""

import torch

# Above the rounding of a float32 sum of a row's probabilities.
_MARGIN = 1e-5
_INFINITY_BITS = 0x7F800000  # of a float32


def kept_tokens(probs, top_ks, top_ps, min_ps=None) -> tuple[torch.Tensor, torch.Tensor]:
    """What the filters keep of each row, most likely first.

    probs: [n, vocab] float32; top_ks [n] int, top_ps [n], min_ps [n] or None.
    Returns probabilities [n, m], 0 where a token is not kept, and token ids [n, m] int64.
    """
    values, ids = _sorted(*_candidates(probs, top_ps))
    sums = values.cumsum(-1)
    dropped = (torch.arange(values.shape[1]) >= top_ks[:, None]) | ((sums - values) > top_ps[:, None])
    if min_ps is not None:
        dropped |= values < (values[:, 0] * min_ps)[:, None]
    return values.masked_fill_(dropped, 0.0), ids


def _candidates(probs, top_ps) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens of each row that top-p may keep: values and ids [n, m], ids ascending, filled with 0.

    A token is kept where it and all that are less likely have at least 1 - top_p together. As many as there are, each
    below (1 - top_p) / vocab, have not.
    """
    n, vocab = probs.shape
    bound = ((1.0 - _MARGIN - top_ps) / vocab).clamp_min(0.0)
    inside = probs > bound[:, None]
    counts = inside.sum(-1)
    most = max(1, int(counts.max()))
    if 2 * most > vocab:
        return probs, torch.arange(vocab).expand(n, -1)
    flat = inside.view(-1).nonzero().view(-1)
    row = torch.arange(n).repeat_interleave(counts)
    first = counts.cumsum(0) - counts
    place = torch.arange(flat.numel()) + (torch.arange(n) * most - first)[row]
    values, ids = probs.new_zeros(n * most), flat.new_zeros(n * most)
    values[place] = probs.reshape(-1)[flat]
    ids[place] = flat - row * vocab
    return values.view(n, most), ids.view(n, most)


def _sorted(values, ids) -> tuple[torch.Tensor, torch.Tensor]:
    """Both [n, m] by descending value, equal ones by ascending id."""
    keys = ((_INFINITY_BITS - values.contiguous().view(torch.int32).long()) << 32) | ids
    keys.numpy().sort(axis=-1)
    return (_INFINITY_BITS - (keys >> 32)).int().view(torch.float32), keys & 0xFFFFFFFF
