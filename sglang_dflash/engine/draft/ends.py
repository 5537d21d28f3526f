"""The ends of the draft, chosen once: embedding and head are the target's, or the draft's own."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from sglang_dflash.checkpoints.checks.targets import input_embedding
from sglang_dflash.engine.draft.candidates import Candidates, Packing, SelectedCandidates
from sglang_dflash.engine.draft.embedding import build_embedding
from sglang_dflash.engine.draft.head import MappedHead, build_head
from sglang_dflash.engine.draft.selector import GreedyTokens, SelectedPath
from sglang_dflash.engine.updates.derived import after_updates
from sglang_dflash.kernels.selected_path import Transform


class Ends(NamedTuple):
    """What a draft needs around its layers."""

    embed: Callable  # ids [tokens] -> [tokens, hidden]
    choose: Callable  # hidden [tokens, hidden], ids [tokens] -> tokens [tokens] int64, or rows packed by ``packing``
    packing: Packing | None


def build_ends(
    draft,
    target,
    mask_token_id: int,
    mask_row: torch.Tensor | None,
    block_size: int,
    candidates: int = 0,
    shares_copies: bool = True,
) -> Ends:
    """Ends of ``draft`` over the model ``target``; what they share is kept once, where ``shares_copies``.

    candidates: how many are wanted of every position beside the path.
    """
    config = draft.draft_config
    # Without a checkpoint's weights (--load-format dummy) nothing can be told to be a copy.
    if shares_copies and draft.is_loaded:
        release_copies(draft, target)
    draft.mask_embedding = mask_row
    embeds = target if draft.embed_tokens is None else draft
    embed = build_embedding(embeds, mask_token_id, mask_row, config.embedding_scale)
    head = build_head(target if draft.lm_head is None else draft)
    if draft.lm_head is not None and config.draft_vocab_size is not None:
        # d2t holds what is to be added to a row's number.
        rows = torch.arange(config.draft_vocab_size, device=draft.d2t.device)
        to_target = rows + draft.d2t
        after_updates(draft, lambda: torch.add(rows, draft.d2t, out=to_target))
        head = MappedHead(head, to_target)
    selector = draft.candidate_selector
    path = None if selector is None else SelectedPath(head, selector, config, block_size)
    if not candidates:
        return Ends(embed, path or GreedyTokens(head, block_size), None)
    packing = Packing(candidates, has_transitions=path is not None)
    if path is not None:
        return Ends(embed, SelectedCandidates(head, path, packing, block_size), packing)
    transform = Transform(config.output_multiplier, config.final_logit_softcapping)
    return Ends(embed, Candidates(head, transform, packing, block_size), packing)


def release_copies(draft, target) -> None:
    """Drop an embedding or head of the draft's own that equals the target's: exports often carry copies.

    From then on the draft shares the target's, also after an update of the target.
    """
    # A target that scales its embedding hands out other vectors than its table's.
    if not _scales(target) and _same(draft.embed_tokens, input_embedding(target)):
        draft.embed_tokens = None
        draft.shared_ends["embed_tokens.weight"] = input_embedding(target)
    if _same(draft.lm_head, getattr(target, "lm_head", None)):
        draft.lm_head = None
        draft.shared_ends["lm_head.weight"] = target.lm_head


def _scales(target) -> bool:
    embed = input_embedding(target)
    return hasattr(target, "get_dflash_noise_embedding_scale") or hasattr(embed, "embed_scale")


def _same(own: nn.Module | None, borrowed: nn.Module | None) -> bool:
    own, borrowed = (getattr(module, "weight", None) for module in (own, borrowed))
    if own is None or borrowed is None or own.shape != borrowed.shape or own.dtype != borrowed.dtype:
        return False
    return torch.equal(own, borrowed)
