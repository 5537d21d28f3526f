"""Which token id fills a block's positions after the anchor."""

from collections.abc import Mapping
from pathlib import Path

from sglang_dflash.config import DraftConfig, read_json
from sglang_dflash.errors import DFlashError


def mask_token_id(draft: DraftConfig, vocabulary: Mapping[str, int], vocab_size: int) -> int:
    """The draft's mask token id: given by number, or looked up by name, or the first id past the vocabulary.

    Args:
        draft: the draft's config.
        vocabulary: the target tokenizer's tokens and ids, added tokens included.
        vocab_size: rows of the target's embedding.

    Raises:
        DFlashError: number and name disagree, or the target's embedding has no row for the token.
    """
    named = vocabulary.get(draft.mask_token)
    given = draft.mask_token_id
    if given is not None and named is not None and given != named:
        raise DFlashError(
            "draft mask_token_id",
            f"is {given}, but the target's tokenizer has {draft.mask_token} at {named}",
            "use the draft that was trained for this target",
        )
    # A name that the tokenizer lacks was, in training, added behind its last token.
    found = next((i for i in (given, named) if i is not None), max(vocabulary.values(), default=-1) + 1)
    if not 0 <= found < vocab_size:
        raise DFlashError(
            "draft mask_token_id" if given is not None else "draft mask_token",
            f"needs id {found}, outside the target's vocabulary of {vocab_size}",
            "use the draft that was trained for this target",
        )
    return found


def read_vocabulary(folder: Path) -> dict[str, int] | None:
    """Tokens and ids of a folder's ``tokenizer.json``; None where there is none or it is of another kind."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    raw = read_json(path, "target tokenizer")
    vocabulary = raw.get("model", {}).get("vocab")
    if not isinstance(vocabulary, dict):
        return None
    return vocabulary | {token["content"]: token["id"] for token in raw.get("added_tokens", ())}
