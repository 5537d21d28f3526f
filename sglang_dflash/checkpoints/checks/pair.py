"""Does this draft fit this target, and do the asked sizes fit the draft? From the two configs alone."""

from collections.abc import Iterator, Mapping
from typing import Any

from sglang_dflash.checkpoints.checks.findings import ERROR, Finding
from sglang_dflash.checkpoints.config import DraftConfig

_OTHER_DRAFT = "use the draft that was trained for this target"
_FIX = "fix the draft's config.json"


def pair_findings(
    target: Mapping[str, Any],
    draft: DraftConfig,
    *,
    block_size: int | None = None,
    window: int | None = None,
    tp_size: int = 1,
) -> Iterator[Finding]:
    """Everything that makes a pair or its sizes impossible, as errors.

    Args:
        target: the target's ``config.json``; a ``text_config`` inside takes precedence.
        draft: the parsed draft config.
        block_size: block asked for at launch, None for the trained one.
        window: draft window asked for at launch, in tokens, None for the whole context.
        tp_size: ranks that share each layer.
    """
    text = text_config(target)
    yield from _hidden_size(text, draft)
    yield from _vocabulary(text, draft)
    yield from _layer_ids(target_depth(target), draft)
    yield from _heads(draft, tp_size)
    yield from _sizes(draft, block_size, window)


def text_config(target: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's part of a target's config."""
    return target.get("text_config") or target


def target_depth(target: Mapping[str, Any]) -> int | None:
    """Layers whose output can be captured, every loop counted; None where the config is silent."""
    text = text_config(target)
    depth = text.get("num_hidden_layers")
    return None if depth is None else depth * (text.get("num_loops") or 1)


def _error(name: str, field: str, what: str, remedy: str) -> Finding:
    return Finding(name, ERROR, field, what, remedy)


def _hidden_size(text: Mapping[str, Any], draft: DraftConfig) -> Iterator[Finding]:
    expected = text.get("hidden_size")
    if expected is not None and draft.hidden_size != expected:
        what = f"is {draft.hidden_size}, the target's is {expected}"
        yield _error("wrong-draft", "draft hidden_size", what, _OTHER_DRAFT)


def _vocabulary(text: Mapping[str, Any], draft: DraftConfig) -> Iterator[Finding]:
    expected = text.get("vocab_size")
    if expected is None:
        return
    if draft.vocab_size is not None and draft.vocab_size != expected:
        what = f"is {draft.vocab_size}, the target's is {expected}"
        yield _error("wrong-draft", "draft vocab_size", what, _OTHER_DRAFT)
    if draft.mask_token_id is not None and draft.mask_token_id >= expected:
        what = f"is {draft.mask_token_id}, outside the target's vocabulary of {expected}"
        yield _error("mask-token-outside", "draft mask_token_id", what, _OTHER_DRAFT)


def _layer_ids(depth: int | None, draft: DraftConfig) -> Iterator[Finding]:
    if depth is None:
        return
    if draft.num_target_layers is not None and draft.num_target_layers != depth:
        what = f"is {draft.num_target_layers}, the target has {depth} layers"
        yield _error("wrong-draft", "draft num_target_layers", what, _OTHER_DRAFT)
    field, ids = "draft target_layer_ids", draft.layer_ids_for(depth)
    wrong = [i for i in ids if not 0 <= i < depth]
    if wrong:
        what = f"hold {wrong[0]}, the target's layers are 0 to {depth - 1}"
        yield _error("layer-ids-out-of-range", field, what, _OTHER_DRAFT)
    # Features arrive once per layer, in layer order: any other order would feed fc the wrong columns.
    if list(ids) != sorted(set(ids)):
        remedy = "list each layer once, ascending, as fc was trained"
        yield _error("layer-ids-out-of-order", field, f"are {list(ids)}", remedy)


def _heads(draft: DraftConfig, tp_size: int) -> Iterator[Finding]:
    heads, kv_heads = draft.num_heads, draft.num_kv_heads
    if heads % kv_heads:
        what = f"is {kv_heads}, which does not divide num_attention_heads {heads}"
        yield _error("draft-heads", "draft num_key_value_heads", what, _FIX)
    if draft.head_dim % 2:
        yield _error("draft-heads", "draft head_dim", f"is {draft.head_dim}, rotary needs an even one", _FIX)
    if heads % tp_size or max(kv_heads, tp_size) % min(kv_heads, tp_size):
        what = f"is {tp_size}, the draft has {heads} heads, {kv_heads} for KV"
        yield _error("draft-heads", "--tp-size", what, "use a divisor of both")


def _sizes(draft: DraftConfig, block_size: int | None, window: int | None) -> Iterator[Finding]:
    name, flag, usable = "block-size-unusable", "--speculative-num-draft-tokens", f"use 2 to {draft.block_size}"
    if block_size is not None and block_size < 2:
        yield _error(name, flag, f"is {block_size}, a block is the anchor and at least one draft token", usable)
    block = draft.block_size if block_size is None else block_size
    if block > draft.max_position_embeddings:
        what = f"is {block}, the draft knows {draft.max_position_embeddings} positions"
        yield _error(name, flag, what, usable)
    if window is not None and window < block:
        what = f"is {window}, less than the block of {block}"
        yield _error("window-too-small", "--speculative-draft-window-size", what, f"use at least {block}")
