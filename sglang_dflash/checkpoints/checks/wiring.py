"""Is the draft wired as it was trained? Layers, block, causality, rope: what loads, and then drafts badly."""

from collections.abc import Iterator
from typing import Any

from sglang_dflash.checkpoints.checks.case import Case
from sglang_dflash.checkpoints.checks.findings import NOTE, WARNING, Finding
from sglang_dflash.checkpoints.checks.pair import target_depth
from sglang_dflash.checkpoints.config import DEFAULT_BLOCK_SIZE, spaced_layer_ids
from sglang_dflash.errors import DFlashError

_FLAG = "--speculative-num-draft-tokens"


def wiring_findings(case: Case) -> Iterator[Finding]:
    """Everything about the draft's wiring that two configs and the catalogue tell."""
    yield from _another_target(case)
    yield from _off_by_one(case)
    yield from _block_size(case)
    yield from _causality(case)
    yield from _rope(case)


def _another_target(case: Case) -> Iterator[Finding]:
    mine, its = case.target_entry, case.draft_entry
    if its is None or its is mine:
        return
    severity = NOTE if mine is None else WARNING
    given = "this target" if mine is None else mine.checkpoint
    what = f"is known as the draft of {its.checkpoint}, not of {given}"
    better = f"use {mine.draft.checkpoint}" if mine and mine.draft else "measure it: check --run"
    yield Finding("draft-of-another-target", severity, "draft", what, better)


def _off_by_one(case: Case) -> Iterator[Finding]:
    ids, depth = case.draft.target_layer_ids, target_depth(case.target)
    if ids is None or depth is None or len(ids) < 2:
        return
    for shift, remedy in ((1, "subtract 1 from each"), (-1, "add 1 to each")):
        for expected, origin in _expected_ids(case, depth, len(ids)):
            if tuple(i + shift for i in expected) == ids:
                what = f"are {list(ids)}, all {'above' if shift > 0 else 'below'} {origin} {list(expected)} by one"
                remedy = f"{remedy}, unless it was trained so: id i is the output of layer i, counted from 0"
                yield Finding("layer-ids-off-by-one", WARNING, "draft target_layer_ids", what, remedy)
                return


def _expected_ids(case: Case, depth: int, count: int) -> Iterator[tuple[tuple[int, ...], str]]:
    known = case.target_entry and case.target_entry.draft and case.target_entry.draft.layer_ids
    if known and len(known) == count:
        yield known, "the published"
        if known == case.draft.target_layer_ids:
            return
    try:
        yield spaced_layer_ids(depth, count), "the usual"
    except DFlashError:
        return  # too few layers for the rule


def _block_size(case: Case) -> Iterator[Finding]:
    trained, asked = case.draft.block_size, case.plan.block_size
    inside, outside = (case.raw.get("dflash_config") or {}).get("block_size"), case.raw.get("block_size")
    if inside is not None and outside is not None and inside != outside:
        what = f"is {inside} in dflash_config and {outside} beside it: {trained} is taken"
        yield Finding("block-size-two-values", WARNING, "draft block_size", what, "keep the one of the training")
    entry = case.draft_entry
    known = None if entry is None or entry.draft is None else entry.draft.block_size
    if _names_no_block(case.raw):
        remedy = f"the catalogue says {known}" if known else f"set it, or give {_FLAG}"
        severity = NOTE if known == DEFAULT_BLOCK_SIZE else WARNING
        yield Finding("block-size-missing", severity, "draft block_size", f"is missing: {trained} is assumed", remedy)
    if asked is None or asked == trained:
        return
    if asked == trained - 1:
        what = f"is {asked}, the block of {trained} without its anchor"
        remedy = f"use {trained}: SGLang counts the anchor, vLLM's num_speculative_tokens does not"
        yield Finding("block-size-counts-otherwise", WARNING, _FLAG, what, remedy)
    elif asked > trained:
        what = f"is {asked}, the draft was trained on blocks of {trained}"
        yield Finding("block-size-not-as-trained", WARNING, _FLAG, what, f"use {trained} or less")
    else:
        what = f"is {asked}, the draft was trained on blocks of {trained}"
        remedy = "shorter blocks work, and suit many requests in flight"
        yield Finding("block-size-not-as-trained", NOTE, _FLAG, what, remedy)


def _names_no_block(raw: Any) -> bool:
    return "block_size" not in raw and "block_size" not in (raw.get("dflash_config") or {})


def _causality(case: Case) -> Iterator[Finding]:
    own = case.raw.get("dflash_config") or {}
    text = case.raw.get("text_config") or case.raw
    flag = text.get("is_causal", case.raw.get("is_causal"))
    layers = case.draft.layers
    full = [i for i, layer in enumerate(layers) if layer.window is None]
    sliding = [layer for layer in layers if layer.window is not None]
    if flag is True and full:
        what = f"is true, and layer {full[0]} has full attention: its block no longer sees itself both ways"
        remedy = "remove it unless the draft was trained causal"
        yield Finding("causal-full-attention", WARNING, "draft is_causal", what, remedy)
    inner = own.get("causal", own.get("is_causal"))
    effective = {layer.causal for layer in layers}
    if inner is not None and effective != {bool(inner)}:
        what = f"is {str(inner).lower()} in dflash_config, which does not count: layers are {_causal_words(effective)}"
        yield Finding("causal-flag-ignored", WARNING, "draft causal", what, "set is_causal at the top level alone")
    if flag is None and inner is None and not full and all(layer.causal for layer in sliding):
        what = "is not given, so all layers, which slide, are causal"
        remedy = "set it to false if the draft was trained both ways"
        # DFlash 2 drafts see their block both ways.
        severity = WARNING if case.draft.selector else NOTE
        yield Finding("causal-by-default", severity, "draft is_causal", what, remedy)
    window = text.get("sliding_window", case.raw.get("sliding_window"))
    if window and text.get("use_sliding_window") and not sliding:
        what = f"is {window}, and no layer slides"
        yield Finding("window-ignored", WARNING, "draft sliding_window", what, "name sliding layers in layer_types")


def _causal_words(effective: set[bool]) -> str:
    return "mixed" if len(effective) > 1 else "causal" if True in effective else "not causal"


def _rope(case: Case) -> Iterator[Finding]:
    bases = set(_bases(case.text))
    if bases and case.draft.rope.theta not in bases:
        what = f"is {case.draft.rope.theta:g}, the target's is {' or '.join(f'{base:g}' for base in sorted(bases))}"
        yield Finding("rope-differs", NOTE, "draft rope_theta", what, "check it against the training")


def _bases(text: Any) -> Iterator[float]:
    """Every rotary base that a target's config names, those of single layer kinds included."""
    for key, value in text.items():
        if key in ("rope_theta", "rope_local_base_freq") and isinstance(value, (int, float)):
            yield float(value)
        elif key in ("rope_parameters", "rope_scaling") and isinstance(value, dict):
            yield from _bases(value)
        elif isinstance(value, dict) and "rope_theta" in value:
            yield from _bases(value)
