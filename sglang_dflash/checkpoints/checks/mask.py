"""Which token id fills a block's positions after the anchor."""

from collections.abc import Mapping
from typing import Any

from sglang_dflash.checkpoints.checks.findings import ERROR, Finding
from sglang_dflash.checkpoints.config import DraftConfig

_OTHER_DRAFT = "use the draft that was trained for this target"


def mask_token_id(draft: DraftConfig, vocabulary: Mapping[str, int], vocab_size: int) -> int:
    """The draft's mask token id: given by number, or looked up by name, or the first id past the vocabulary.

    Args:
        draft: the draft's config.
        vocabulary: the target tokenizer's tokens and ids, added tokens included.
        vocab_size: rows of the target's embedding.

    Raises:
        DFlashError: number and name disagree, or the target's embedding has no row for the token.
    """
    wrong = mask_finding(draft, vocabulary, vocab_size)
    if wrong is not None:
        raise wrong.as_error()
    return _found(draft, vocabulary)


def mask_finding(draft: DraftConfig, vocabulary: Mapping[str, int], vocab_size: int) -> Finding | None:
    """Why the mask token cannot be used, None where it can; arguments as of ``mask_token_id``."""
    named, given = vocabulary.get(draft.mask_token), draft.mask_token_id
    if given is not None and named is not None and given != named:
        what = f"is {given}, but the target's tokenizer has {draft.mask_token} at {named}"
        return Finding("mask-token-two-ids", ERROR, "draft mask_token_id", what, _OTHER_DRAFT)
    found = _found(draft, vocabulary)
    if not 0 <= found < vocab_size:
        field = "draft mask_token_id" if given is not None else "draft mask_token"
        what = f"needs id {found}, outside the target's vocabulary of {vocab_size}"
        return Finding("mask-token-outside", ERROR, field, what, _OTHER_DRAFT)
    return None


def _found(draft: DraftConfig, vocabulary: Mapping[str, int]) -> int:
    named = vocabulary.get(draft.mask_token)
    # A name that the tokenizer lacks was, in training, added behind its last token.
    return next((i for i in (draft.mask_token_id, named) if i is not None), max(vocabulary.values(), default=-1) + 1)


def vocabulary_of(tokenizer: Mapping[str, Any]) -> dict[str, int] | None:
    """Tokens and ids in the contents of a ``tokenizer.json``; None where they are not kept as a mapping."""
    vocabulary = (tokenizer.get("model") or {}).get("vocab")
    if not isinstance(vocabulary, dict):
        return None
    return vocabulary | {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or ()}
