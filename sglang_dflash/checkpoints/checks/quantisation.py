"""Quantised weights on a host, where SGLang has no kernels for them."""

from collections.abc import Iterator

from sglang_dflash.checkpoints.checks.case import Case
from sglang_dflash.checkpoints.checks.findings import ERROR, Finding


def quantisation_findings(case: Case) -> Iterator[Finding]:
    """An error for each of target and draft that is quantised."""
    if not case.plan.on_cpu:
        return
    config = case.target.get("quantization_config") or case.text.get("quantization_config") or {}
    for which, method in (("draft", case.draft.quantisation), ("target", config.get("quant_method"))):
        if method is not None:
            what = f"is {method}, whose kernels the CPU platform lacks"
            remedy = "use full-precision weights or a GPU"
            yield Finding("quantised-on-cpu", ERROR, f"{which} quantization_config", what, remedy)
