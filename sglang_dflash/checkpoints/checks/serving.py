"""Can it be served like this? Kind of draft, number formats, context, the target's head, the draft's cache."""

from collections.abc import Iterator, Mapping
from typing import Any

from sglang_dflash.checkpoints.checks.case import Case
from sglang_dflash.checkpoints.checks.findings import ERROR, NOTE, WARNING, Finding
from sglang_dflash.checkpoints.checks.tensors import check_tensors
from sglang_dflash.errors import DFlashError

_WINDOW = 4096  # tokens: what published drafts are trained on, where the catalogue says nothing else
QUANTISED_CACHES = ("fp8_e4m3", "fp8_e5m2", "mxfp8", "nvfp4", "fp4_mx_block16")  # values of --kv-cache-dtype
_HALF = ("float16", "half", "fp16", "torch.float16")


def serving_findings(case: Case) -> Iterator[Finding]:
    """Everything about how the pair is to be served."""
    yield from _variant(case)
    yield from _tensors(case)
    yield from _context(case)
    yield from _half(case)
    yield from _head(case)
    yield from _cache(case)


def _variant(case: Case) -> Iterator[Finding]:
    variant = case.draft.unsupported_variant
    if variant is None:
        return
    if case.plan.on_cpu:
        what = f"is of the variant {variant}, which the CPU platform cannot run"
        yield Finding("draft-variant", ERROR, "draft", what, "use a plain DFlash draft")
    else:
        what = f"is of the variant {variant}"
        yield Finding("draft-variant", NOTE, "draft", what, "SGLang's built-in worker serves it")


def _tensors(case: Case) -> Iterator[Finding]:
    if case.draft_tensors is None or case.draft.unsupported_variant is not None:
        return
    try:
        check_tensors(case.draft_tensors, case.draft)
    except DFlashError as error:
        yield Finding("draft-tensors", ERROR, error.field, error.problem, error.remedy)


def _context(case: Case) -> Iterator[Finding]:
    served, known = case.context_length, case.draft.max_position_embeddings
    full = any(layer.window is None for layer in case.draft.layers)
    if served is None or not full:
        return
    if case.plan.window is not None:
        if case.plan.window >= served:
            what = f"is {case.plan.window}, and the context {served}: the draft sees all of it"
            yield Finding("window-too-large", NOTE, "--speculative-draft-window-size", what, "leave it out")
        return
    entry = case.draft_entry and case.draft_entry.draft
    trained = entry and entry.trained_context
    remedy = f"use --speculative-draft-window-size {draft_window(case)}"
    if served > known:
        what = f"is {served}, the draft knows {known} positions"
        yield Finding("draft-context-short", WARNING, "--context-length", what, remedy)
    elif trained and served > trained:
        what = f"is {served}, the draft was trained on {trained} tokens: accept length falls behind that"
        yield Finding("draft-context-untrained", NOTE, "--context-length", what, remedy)


def draft_window(case: Case) -> int:
    """Draft window, in tokens, for a context that is longer than what the draft knows."""
    entry = case.draft_entry and case.draft_entry.draft
    window = (entry and entry.window) or _WINDOW
    return max(case.block_size, min(window, case.draft.max_position_embeddings // 2))


def _half(case: Case) -> Iterator[Finding]:
    if case.plan.dtype in _HALF:
        yield _half_finding("--dtype", "is float16")
    elif case.plan.dtype == "auto":
        target, draft = stored_dtype(case.target), stored_dtype(case.raw)
        if target in _HALF:
            yield _half_finding("target dtype", "is float16")
        elif target in ("float32", None) and not case.plan.on_cpu:
            given = "is float32" if target else "is not given"
            yield _half_finding("target dtype", f"{given}, which --dtype auto serves in float16")
        elif draft in _HALF:
            yield _half_finding("draft dtype", "is float16")


def _half_finding(field: str, what: str) -> Finding:
    return Finding("fp16", WARNING, field, f"{what}: drafts lose their acceptance in it", "use --dtype bfloat16")


def stored_dtype(config: Mapping[str, Any]) -> str | None:
    """Number format that a config names, without the library's prefix."""
    text = config.get("text_config") or {}
    found = next((part[key] for part in (text, config) for key in ("dtype", "torch_dtype") if part.get(key)), None)
    return None if found is None else str(found).removeprefix("torch.")


def _head(case: Case) -> Iterator[Finding]:
    how = quantised_head(case)
    if how is None:
        return
    if case.plan.tp_size > 1:
        what = f"is quantised ({how}), and split over {case.plan.tp_size} ranks"
        remedy = "use --tp-size 1 or a checkpoint with an unquantised head"
        yield Finding("quantised-head", ERROR, "target lm_head", what, remedy)
    else:
        what = f"is quantised ({how}): drafts are read from its rounded logits"
        remedy = "prefer a checkpoint that leaves lm_head out of the quantisation"
        yield Finding("quantised-head", WARNING, "target lm_head", what, remedy)


def quantised_head(case: Case) -> str | None:
    """How the target's head is quantised, None where it is not; from its tensors, else from its config."""
    heads = {name: info for name, info in (case.target_tensors or {}).items() if "lm_head." in name}
    for name, info in heads.items():
        if not name.endswith("lm_head.weight") and ("scale" in name or "qweight" in name or "packed" in name):
            return name
        if name.endswith("lm_head.weight") and info.dtype not in ("F64", "F32", "F16", "BF16"):
            return info.dtype
    if heads:
        return None
    config = case.target.get("quantization_config") or case.text.get("quantization_config") or {}
    return str(config.get("quant_method", "lm_head")) if config.get("lm_head") is True else None


def _cache(case: Case) -> Iterator[Finding]:
    given = case.plan.draft_kv_dtype
    if given in QUANTISED_CACHES:
        what = f"is {given}, and a draft keeps its keys and values in its own number format"
        yield Finding("draft-cache-dtype", ERROR, "--speculative-draft-kv-cache-dtype", what, "leave it out")


def own_cache_dtype(raw: Mapping[str, Any], dtype: str) -> str:
    """``--speculative-draft-kv-cache-dtype`` for keys and values in the draft's own number format.

    Args:
        raw: the draft's ``config.json``.
        dtype: ``--dtype``.
    """
    served = stored_dtype(raw) if dtype == "auto" else dtype
    # Named, SGLang knows before it loads the draft that the two caches differ.
    return "bf16" if served == "bfloat16" else "auto"
