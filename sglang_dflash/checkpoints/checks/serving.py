"""Can it be served like this? Class, number formats, context, attention backends, pages, the target's head."""

from collections.abc import Iterator, Mapping
from typing import Any

from sglang_dflash.checkpoints.checks.case import Case
from sglang_dflash.checkpoints.checks.findings import ERROR, NOTE, WARNING, Finding
from sglang_dflash.checkpoints.checks.tensors import check_tensors
from sglang_dflash.errors import DFlashError

# Draft attention backends that DFLASH accepts in SGLang 0.5.23.
DRAFT_BACKENDS = ("flashinfer", "fa3", "fa4", "triton", "ascend", "trtllm_mha", "intel_xpu")
# Backend -> GPU generations that it runs on; those not listed run on all.
_GENERATIONS = {
    "fa3": ("sm80", "sm90"),
    "fa4": ("sm90", "sm100"),
    "trtllm_mha": ("sm100",),
    "trtllm_mla": ("sm100",),
    "cutedsl_mla": ("sm100",),
    "flashmla": ("sm90", "sm100"),
}
_PAGES = {"trtllm_mha": (16, 32, 64, 128), "trtllm_mla": (32, 64), "cutedsl_mla": (32, 64), "flashmla": (64,)}
_LARGEST_HEAD = {"fa3": 256, "fa4": 256, "flashinfer": 256, "trtllm_mha": 256}
_WINDOW = 4096  # tokens: what published drafts are trained on, where the catalogue says nothing else
_HALF = ("float16", "half", "fp16", "torch.float16")


def serving_findings(case: Case) -> Iterator[Finding]:
    """Everything about how the pair is to be served."""
    yield from _variant(case)
    yield from _tensors(case)
    yield from _context(case)
    yield from _half(case)
    yield from _head(case)
    if not case.plan.on_cpu:
        yield from _backends(case)
        yield from _pages(case)


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
    if served is None or case.plan.window is not None or not full:
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


def _backends(case: Case) -> Iterator[Finding]:
    plan = case.plan
    draft = plan.draft_attention or (plan.attention if plan.attention in DRAFT_BACKENDS else None)
    if plan.draft_attention is not None and plan.draft_attention not in DRAFT_BACKENDS:
        what = f"is {plan.draft_attention}, which DFLASH drafts cannot use"
        yield _backend("--speculative-draft-attention-backend", what, f"use one of {', '.join(DRAFT_BACKENDS)}")
    for flag, backend in (
        ("--attention-backend", plan.attention),
        ("--speculative-draft-attention-backend", plan.draft_attention),
    ):
        allowed = _GENERATIONS.get(backend)
        if plan.generation and allowed and plan.generation not in allowed:
            what = f"is {backend}, which runs on {', '.join(allowed)}; this GPU is {plan.generation}"
            yield _backend(flag, what, "see sglang-dflash launch for one that fits")
    if draft == "trtllm_mha" and not _fits_trtllm(case):
        what = "is trtllm_mha, which the draft's full layers that see their block both ways cannot use"
        remedy = "use fa4 (sm100) or flashinfer"
        yield _backend("--speculative-draft-attention-backend", what, remedy, WARNING)
    largest, head = _LARGEST_HEAD.get(plan.attention), _head_dim(case.text)
    if largest and head and head > largest:
        what = f"is {plan.attention}, which computes heads up to {largest}; the target's have {head}"
        yield _backend("--attention-backend", what, "use triton", WARNING)


def _backend(flag: str, what: str, remedy: str, severity: str = ERROR) -> Finding:
    return Finding("backend-unsupported", severity, flag, what, remedy)


def _fits_trtllm(case: Case) -> bool:
    layers = case.draft.layers
    return all(layer.window is not None for layer in layers) or all(layer.causal for layer in layers)


def _head_dim(text: Mapping[str, Any]) -> int | None:
    return max((text[key] for key in ("head_dim", "global_head_dim") if text.get(key)), default=None)


def _pages(case: Case) -> Iterator[Finding]:
    plan, page = case.plan, case.plan.page_size
    if page is None:
        return
    for backend in filter(None, (plan.attention, plan.draft_attention)):
        usable = _PAGES.get(backend)
        if usable and page not in usable:
            what = f"is {page}, {backend} uses {', '.join(map(str, usable))}"
            yield Finding(
                "page-size-unsupported", WARNING, "--page-size", what, f"use {64 if 64 in usable else usable[0]}"
            )
    if plan.mamba == "no_buffer" and page != 1:
        what = f"is {page}, and without extra state buffers pages have one token"
        remedy = "use 1, or --mamba-radix-cache-strategy extra_buffer"
        yield Finding("page-size-unsupported", ERROR, "--page-size", what, remedy)
