"""Other ways in which the same draft could be wired: one that drafts far better shows a wrong config."""

from collections.abc import Iterator
from dataclasses import dataclass

from sglang_dflash.checkpoints.checks.case import Case
from sglang_dflash.checkpoints.checks.pair import target_depth
from sglang_dflash.reference import ReferenceDraft


@dataclass(frozen=True)
class Wiring:
    """One change of the draft's config."""

    field: str
    value: object
    words: str

    def apply(self, draft: ReferenceDraft) -> None:
        """Make the change."""
        setattr(draft, self.field, self.value)

    def undo(self, draft: ReferenceDraft, before: object) -> None:
        """Take it back."""
        setattr(draft, self.field, before)


def wirings(case: Case, draft: ReferenceDraft) -> Iterator[Wiring]:
    """Every change that users are known to need: layer ids, causality, mask token."""
    ids, depth = tuple(draft.target_layer_ids), target_depth(case.target)
    seen = {ids}
    known = case.target_entry and case.target_entry.draft and case.target_entry.draft.layer_ids
    for others in (known, tuple(i - 1 for i in ids), tuple(i + 1 for i in ids)):
        if others and len(others) == len(ids) and others not in seen and 0 <= others[0] and others[-1] < depth:
            seen.add(others)
            yield Wiring("target_layer_ids", others, f"target_layer_ids {list(others)}")
    for flag in (True, False):
        if {layer.causal for layer in case.draft.layers} != {flag}:
            yield Wiring("is_causal", flag, f"is_causal {str(flag).lower()}")
    for number in _mask_tokens(case) - {draft.mask_token_id}:
        yield Wiring("mask_token_id", number, f"mask_token_id {number}")


def _mask_tokens(case: Case) -> set[int]:
    """Tokens that are called a mask, and the published one."""
    vocabulary = (case.target_texts and case.target_texts.vocabulary) or {}
    named = {number for token, number in vocabulary.items() if "mask" in token.lower() and len(token) > 5}
    marked = named & case.target_texts.added if case.target_texts else set()
    entry = case.draft_entry or case.target_entry
    published = entry and entry.draft and entry.draft.mask_token_id
    rows = case.text.get("vocab_size") or 0
    return {number for number in {*marked, published} if number is not None and number < rows}
