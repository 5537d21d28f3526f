"""All checks of a case in one list: what the launch and the report go through alike."""

from collections.abc import Iterator

from sglang_dflash.checkpoints.checks.backends import backend_findings
from sglang_dflash.checkpoints.checks.case import Case
from sglang_dflash.checkpoints.checks.findings import ERROR, Finding
from sglang_dflash.checkpoints.checks.pair import pair_findings
from sglang_dflash.checkpoints.checks.quantisation import quantisation_findings
from sglang_dflash.checkpoints.checks.serving import serving_findings
from sglang_dflash.checkpoints.checks.targets import check_capture
from sglang_dflash.checkpoints.checks.tokens import wording_findings
from sglang_dflash.checkpoints.checks.wiring import wiring_findings
from sglang_dflash.errors import DFlashError

# Nodes per request that kernels and SGLang's backends are built for.
MAX_WIDTH = 128


def find(case: Case) -> Iterator[Finding]:
    """Every finding of a case, in the order in which a launch meets them."""
    plan = case.plan
    yield from pair_findings(
        case.target, case.draft, block_size=plan.block_size, window=plan.window, tp_size=plan.tp_size
    )
    yield from _verify_width(case)
    yield from _capture(case)
    yield from quantisation_findings(case)
    yield from wording_findings(case)
    yield from serving_findings(case)
    yield from backend_findings(case)
    yield from wiring_findings(case)


def _verify_width(case: Case) -> Iterator[Finding]:
    width, most = case.verify_width, MAX_WIDTH if case.plan.own_proposer else case.block_size
    if not 1 <= width <= most:
        what = f"is {width}: a chain of blocks of {case.block_size} has 1 to {case.block_size} nodes"
        if case.plan.own_proposer:
            what = f"is {width}, more nodes than a verify pass takes"
        remedy = f"use 1 to {most}, or set --speculative-dflash-block-size"
        yield Finding("verify-width-unusable", ERROR, "--speculative-num-draft-tokens", what, remedy)


def _capture(case: Case) -> Iterator[Finding]:
    try:
        check_capture(case.architecture)
    except DFlashError as error:
        yield Finding("target-class", ERROR, error.field, error.problem, error.remedy)
