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


def find(case: Case) -> Iterator[Finding]:
    """Every finding of a case, in the order in which a launch meets them."""
    plan = case.plan
    yield from pair_findings(
        case.target, case.draft, block_size=plan.block_size, window=plan.window, tp_size=plan.tp_size
    )
    yield from _capture(case)
    yield from quantisation_findings(case)
    yield from wording_findings(case)
    yield from serving_findings(case)
    yield from backend_findings(case)
    yield from wiring_findings(case)


def _capture(case: Case) -> Iterator[Finding]:
    try:
        check_capture(case.architecture)
    except DFlashError as error:
        yield Finding("target-class", ERROR, error.field, error.problem, error.remedy)
