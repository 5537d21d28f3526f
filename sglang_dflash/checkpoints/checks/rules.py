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
# Candidates of a position: more have never paid, and every one is a node that another path lacks.
MAX_BRANCHING = 32


def find(case: Case) -> Iterator[Finding]:
    """Every finding of a case, in the order in which a launch meets them."""
    plan = case.plan
    yield from pair_findings(
        case.target, case.draft, block_size=plan.block_size, window=plan.window, tp_size=plan.tp_size
    )
    yield from _verify_width(case)
    yield from _trees(case)
    yield from _shapes(case)
    yield from _lookup(case)
    yield from _capture(case)
    yield from quantisation_findings(case)
    yield from wording_findings(case)
    yield from serving_findings(case)
    yield from backend_findings(case)
    yield from wiring_findings(case)


def _verify_width(case: Case) -> Iterator[Finding]:
    wide = case.plan.own_proposer or case.is_wide
    width, most = case.verify_width, MAX_WIDTH if wide else case.block_size
    if not 1 <= width <= most:
        what = f"is {width}: a chain of blocks of {case.block_size} has 1 to {case.block_size} nodes"
        if wide:
            what = f"is {width}, more nodes than a verify pass takes"
        remedy = f"use 1 to {most}, or set --speculative-dflash-block-size"
        yield Finding("verify-width-unusable", ERROR, "--speculative-num-draft-tokens", what, remedy)


def _trees(case: Case) -> Iterator[Finding]:
    branching, field = case.plan.branching, "--speculative-eagle-topk"
    if branching is not None and not 1 <= branching <= MAX_BRANCHING:
        what, remedy = f"is {branching}", f"use 1 (a chain) to {MAX_BRANCHING}"
        yield Finding("branching-unusable", ERROR, field, what, remedy)
    elif case.has_trees and case.plan.own_proposer:
        what = f"is {branching}, and SGLANG_DFLASH_PROPOSER makes the proposals"
        yield Finding("branching-unusable", ERROR, field, what, "give one of them")
    elif case.has_trees and case.verify_width < 3:
        what = f"is {branching}, and {case.verify_width} nodes hold no branch"
        yield Finding("branching-unusable", ERROR, field, what, "raise --speculative-num-draft-tokens")
    elif case.has_trees and not case.plan.on_cpu and case.plan.attention != "triton":
        what = f"is {branching}: on a GPU trees run with Triton attention only"
        yield Finding("branching-unusable", ERROR, field, what, "add --attention-backend triton")


def _shapes(case: Case) -> Iterator[Finding]:
    plan = case.plan
    if plan.shapes == "fixed":
        return
    what = remedy = None
    if plan.own_proposer:
        what, remedy = "and SGLANG_DFLASH_PROPOSER makes proposals of one shape", "give one of them"
    elif plan.dp_size > 1:
        what, remedy = "and data-parallel ranks have batches of their own", "use --tp-size, or leave it fixed"
    elif plan.graphs and not plan.on_cpu:
        what, remedy = "and captured graphs are of one width", "add --cuda-graph-backend-decode disabled, or leave it"
    if what is not None and remedy is not None:
        yield Finding("shapes-unusable", ERROR, "SGLANG_DFLASH_SHAPE", f"is {plan.shapes}, {what}", remedy)


def _lookup(case: Case) -> Iterator[Finding]:
    lookup = case.plan.lookup
    if lookup != "off" and case.plan.own_proposer:
        what = f"is {lookup}, and SGLANG_DFLASH_PROPOSER makes the proposals"
        yield Finding("lookup-unusable", ERROR, "SGLANG_DFLASH_LOOKUP", what, "give one of them")
    elif lookup == "only" and case.plan.shapes != "fixed":
        what = f"is only, which is one shape, and SGLANG_DFLASH_SHAPE is {case.plan.shapes}"
        yield Finding(
            "lookup-unusable", ERROR, "SGLANG_DFLASH_LOOKUP", what, "use on: rounds without a draft are tried, too"
        )
    elif lookup == "only" and case.has_trees:
        what = f"is only: a continuation is a chain, and --speculative-eagle-topk is {case.plan.branching}"
        yield Finding("lookup-unusable", ERROR, "SGLANG_DFLASH_LOOKUP", what, "use on, or drop the flag")


def _capture(case: Case) -> Iterator[Finding]:
    try:
        check_capture(case.architecture)
    except DFlashError as error:
        yield Finding("target-class", ERROR, error.field, error.problem, error.remedy)
