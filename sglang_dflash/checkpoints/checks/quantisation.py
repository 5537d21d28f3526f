"""What a kind of draft, or quantised weights, ask of the machine."""

from collections.abc import Iterator

from sglang_dflash.checkpoints.checks.case import Case
from sglang_dflash.checkpoints.checks.findings import ERROR, Finding

# Attention backends of SGLang 0.5.23 that take attention sinks.
_WITH_SINKS = ("triton", "fa3", "fa4", "trtllm_mha", "intel_xpu")


def kind_findings(case: Case) -> Iterator[Finding]:
    """Quantised weights on a host, where SGLang has no kernels for them; sinks on a backend without them."""
    if case.plan.on_cpu:
        config = case.target.get("quantization_config") or case.text.get("quantization_config") or {}
        given = (("draft", case.draft.quantisation), ("target", config.get("quant_method")))
        for which, method in given:
            if method is not None:
                what = f"is {method}, whose kernels the CPU platform lacks"
                remedy = "use full-precision weights or a GPU"
                yield Finding("quantised-on-cpu", ERROR, f"{which} quantization_config", what, remedy)
        return
    backend = case.plan.draft_attention or case.plan.attention
    if case.draft.attention_sinks and backend is not None and backend not in _WITH_SINKS:
        what = f"is {backend}, which has no attention sinks, and the draft has them"
        remedy = f"use one of {', '.join(_WITH_SINKS)}"
        yield Finding("sinks-unsupported", ERROR, "--speculative-draft-attention-backend", what, remedy)
