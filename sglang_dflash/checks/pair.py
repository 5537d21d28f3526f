"""Does this draft fit this target, and do the asked sizes fit the draft? From the two configs alone."""

from collections.abc import Mapping
from typing import Any

from sglang_dflash.config import DraftConfig
from sglang_dflash.errors import DFlashError

_OTHER_DRAFT = "use the draft that was trained for this target"


def check_pair(
    target: Mapping[str, Any],
    draft: DraftConfig,
    *,
    block_size: int | None = None,
    window: int | None = None,
    tp_size: int = 1,
) -> None:
    """Refuse a pair that cannot work.

    Args:
        target: the target's ``config.json``; a ``text_config`` inside takes precedence.
        draft: the parsed draft config.
        block_size: block asked for at launch, None for the trained one.
        window: draft window asked for at launch, in tokens, None for the whole context.
        tp_size: ranks that share each layer.

    Raises:
        DFlashError: naming the field that does not fit.
    """
    text = target.get("text_config") or target
    _check_hidden_size(text, draft)
    _check_vocabulary(text, draft)
    _check_layer_ids(target_depth(target), draft)
    _check_heads(draft, tp_size)
    _check_sizes(draft, block_size, window)


def target_depth(target: Mapping[str, Any]) -> int | None:
    """Layers whose output can be captured, every loop counted; None where the config is silent."""
    text = target.get("text_config") or target
    depth = text.get("num_hidden_layers")
    return None if depth is None else depth * (text.get("num_loops") or 1)


def _check_hidden_size(text: Mapping[str, Any], draft: DraftConfig) -> None:
    expected = text.get("hidden_size")
    if expected is not None and draft.hidden_size != expected:
        raise DFlashError(
            "draft hidden_size", f"is {draft.hidden_size}, the target's is {expected}", _OTHER_DRAFT
        )


def _check_vocabulary(text: Mapping[str, Any], draft: DraftConfig) -> None:
    expected = text.get("vocab_size")
    if expected is None:
        return
    if draft.vocab_size is not None and draft.vocab_size != expected:
        raise DFlashError(
            "draft vocab_size", f"is {draft.vocab_size}, the target's is {expected}", _OTHER_DRAFT
        )
    if draft.mask_token_id is not None and draft.mask_token_id >= expected:
        raise DFlashError(
            "draft mask_token_id",
            f"is {draft.mask_token_id}, outside the target's vocabulary of {expected}",
            _OTHER_DRAFT,
        )


def _check_layer_ids(depth: int | None, draft: DraftConfig) -> None:
    if depth is None:
        return
    if draft.num_target_layers is not None and draft.num_target_layers != depth:
        raise DFlashError(
            "draft num_target_layers",
            f"is {draft.num_target_layers}, the target has {depth} layers",
            _OTHER_DRAFT,
        )
    ids = draft.layer_ids_for(depth)
    wrong = [i for i in ids if not 0 <= i < depth]
    if wrong:
        raise DFlashError(
            "draft target_layer_ids",
            f"hold {wrong[0]}, the target's layers are 0 to {depth - 1}",
            _OTHER_DRAFT,
        )
    # Features arrive once per layer, in layer order: any other order would feed fc the wrong columns.
    if list(ids) != sorted(set(ids)):
        raise DFlashError(
            "draft target_layer_ids",
            f"are {list(ids)}",
            "list each layer once, ascending, as fc was trained",
        )


def _check_heads(draft: DraftConfig, tp_size: int) -> None:
    heads, kv_heads = draft.num_heads, draft.num_kv_heads
    if heads % kv_heads:
        raise DFlashError(
            "draft num_key_value_heads",
            f"is {kv_heads}, which does not divide num_attention_heads {heads}",
            "fix the draft's config.json",
        )
    if draft.head_dim % 2:
        raise DFlashError(
            "draft head_dim", f"is {draft.head_dim}, rotary needs an even one", "fix the draft's config.json"
        )
    if heads % tp_size or max(kv_heads, tp_size) % min(kv_heads, tp_size):
        raise DFlashError(
            "--tp-size",
            f"is {tp_size}, the draft has {heads} heads, {kv_heads} for KV",
            "use a divisor of both",
        )


def _check_sizes(draft: DraftConfig, block_size: int | None, window: int | None) -> None:
    flag = "--speculative-num-draft-tokens"
    if block_size is not None and block_size < 2:
        raise DFlashError(
            flag,
            f"is {block_size}, a block is the anchor and at least one draft token",
            f"use 2 to {draft.block_size}",
        )
    block = draft.block_size if block_size is None else block_size
    if block > draft.max_position_embeddings:
        limit = draft.max_position_embeddings
        raise DFlashError(
            flag, f"is {block}, the draft knows {limit} positions", f"use 2 to {draft.block_size}"
        )
    if window is not None and window < block:
        raise DFlashError(
            "--speculative-draft-window-size",
            f"is {window}, less than the block of {block}",
            f"use at least {block}",
        )
