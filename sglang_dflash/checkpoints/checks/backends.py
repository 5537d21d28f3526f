"""What attention backends of SGLang 0.5.23 can do: on which GPU, with which pages and heads, with sinks."""

from collections.abc import Iterator, Mapping
from typing import Any

from sglang_dflash.checkpoints.checks.case import Case
from sglang_dflash.checkpoints.checks.findings import ERROR, WARNING, Finding

# Those that DFLASH drafts may have; SGLang replaces others by flashinfer.
DRAFT_BACKENDS = ("flashinfer", "fa3", "fa4", "triton", "ascend", "trtllm_mha", "intel_xpu")
# Backend -> GPU generations that it runs on; those not listed run on all. fa4: of sm80 its kernel reads no pages, for
# sm120 SGLang has kernels of its own (kernels/ops/attention/fa4_sm120).
_RUNS_ON = {
    "fa3": ("sm80", "sm90"),
    "fa4": ("sm90", "sm100", "sm120"),
    "trtllm_mha": ("sm90", "sm100", "sm120"),
    "trtllm_mla": ("sm100", "sm120"),
    "cutedsl_mla": ("sm100",),
    "flashmla": ("sm90", "sm100"),
}
_LATENT_RUNS_ON = {"fa3": ("sm90",)}
_PAGES = {"trtllm_mha": (16, 32, 64, 128), "trtllm_mla": (32, 64), "cutedsl_mla": (32, 64), "flashmla": (64,)}
_LARGEST_HEAD = {"fa3": 256, "fa4": 256, "flashinfer": 256, "trtllm_mha": 256}
WITH_SINKS = ("triton", "fa3", "fa4", "trtllm_mha", "intel_xpu")
_BFLOAT16 = ("bfloat16", "torch.bfloat16")
_TARGET, _DRAFT = "--attention-backend", "--speculative-draft-attention-backend"


def backend_findings(case: Case) -> Iterator[Finding]:
    """Attention backends and pages of a pair on a GPU."""
    if case.plan.on_cpu:
        return
    yield from _choice(case)
    yield from _generation(case)
    yield from _heads(case)
    yield from _sinks(case)
    yield from _pages(case)


def draft_backend(case: Case) -> str | None:
    """The draft's backend as SGLang will choose it; None where the target's is not known yet."""
    plan = case.plan
    asked = plan.draft_attention or plan.attention
    if asked is None:
        return None
    if asked == "trtllm_mha" and not _fits_trtllm(case):
        return "fa4" if plan.generation == "sm100" else "flashinfer"
    return asked if asked in DRAFT_BACKENDS else "flashinfer"


def _finding(flag: str, what: str, remedy: str, severity: str = ERROR) -> Finding:
    return Finding("backend-unsupported", severity, flag, what, remedy)


def _choice(case: Case) -> Iterator[Finding]:
    asked = case.plan.draft_attention
    if asked is not None and asked not in DRAFT_BACKENDS:
        yield _finding(_DRAFT, f"is {asked}, which DFLASH drafts cannot use", f"use one of {', '.join(DRAFT_BACKENDS)}")
    if (asked or case.plan.attention) == "trtllm_mha" and not _fits_trtllm(case):
        what = "is trtllm_mha, which the draft's full layers that see their block both ways cannot use"
        yield _finding(_DRAFT, what, "use fa4 (sm100) or flashinfer", WARNING)


def _fits_trtllm(case: Case) -> bool:
    layers = case.draft.layers
    return all(layer.window is not None for layer in layers) or all(layer.causal for layer in layers)


def _generation(case: Case) -> Iterator[Finding]:
    plan = case.plan
    target = _unfit(plan.attention, plan.generation, bool(case.text.get("kv_lora_rank")))
    if target is not None:
        yield _finding(_TARGET, target, "see sglang-dflash launch for one that fits")
    chosen = draft_backend(case)
    draft = _unfit(chosen, plan.generation, latent=False)
    if draft is not None and (target is None or chosen != plan.attention):
        yield _finding(_DRAFT, draft, "see sglang-dflash launch for one that fits")


def _unfit(backend: str | None, generation: str | None, latent: bool) -> str | None:
    if backend is None:
        return None
    runs_on = (_LATENT_RUNS_ON if latent else {}).get(backend) or _RUNS_ON.get(backend)
    if generation is None or runs_on is None or generation in runs_on:
        return None
    heads = " with latent attention" if latent and backend in _LATENT_RUNS_ON else ""
    return f"is {backend}, which runs{heads} on {', '.join(runs_on)}; this GPU is {generation}"


def _heads(case: Case) -> Iterator[Finding]:
    largest, head = _LARGEST_HEAD.get(case.plan.attention or ""), _head_dim(case.text)
    if largest and head and head > largest:
        what = f"is {case.plan.attention}, which computes heads up to {largest}; the target's have {head}"
        yield _finding(_TARGET, what, "use triton", WARNING)


def _head_dim(text: Mapping[str, Any]) -> int | None:
    return max((text[key] for key in ("head_dim", "global_head_dim") if text.get(key)), default=None)


def _sinks(case: Case) -> Iterator[Finding]:
    backend = draft_backend(case)
    if not case.draft.attention_sinks or backend is None:
        return
    if backend not in WITH_SINKS:
        what = f"is {backend}, which has no attention sinks, and the draft has them"
        yield Finding("sinks-unsupported", ERROR, _DRAFT, what, f"use one of {', '.join(WITH_SINKS)}")
    elif backend == "fa4" and case.plan.dtype not in ("auto", *_BFLOAT16):
        what = f"is fa4, whose attention sinks are bfloat16, and the draft is served in {case.plan.dtype}"
        yield Finding("sinks-unsupported", ERROR, _DRAFT, what, "use --dtype bfloat16, or triton")


def _pages(case: Case) -> Iterator[Finding]:
    plan, page = case.plan, case.plan.page_size
    if page is None:
        return
    for backend in filter(None, (plan.attention, plan.draft_attention)):
        usable = _PAGES.get(backend)
        if usable and page not in usable:
            what = f"is {page}, {backend} uses {', '.join(map(str, usable))}"
            remedy = f"use {64 if 64 in usable else usable[0]}"
            yield Finding("page-size-unsupported", WARNING, "--page-size", what, remedy)
    if plan.mamba == "no_buffer" and page != 1:
        what = f"is {page}, and without extra state buffers pages have one token"
        remedy = "use 1, or --mamba-radix-cache-strategy extra_buffer"
        yield Finding("page-size-unsupported", ERROR, "--page-size", what, remedy)
