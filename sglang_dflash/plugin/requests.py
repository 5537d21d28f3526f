"""Requests that a round does not serve exactly yet are refused one by one, with the reason."""

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sglang_dflash.errors import DFlashError
from sglang_dflash.host.contract import Touch

logger = logging.getLogger(__name__)

VALIDATE = "sglang.srt.speculative.dflash_utils.validate_dflash_request"
VALIDATE_MASK = "sglang.srt.speculative.spec_sampling_mask.validate_spec_sampling_mask_request"
SCHEDULER = "sglang.srt.managers.scheduler"

TOUCHES = (
    Touch(
        "sglang.srt.speculative.dflash_utils:validate_dflash_request",
        "hooked (around): the scheduler asks it about every request and aborts with the text it returns",
        "SGLang asks the worker instead",
        ("req", "enable_overlap"),
    ),
    Touch(
        "sglang.srt.managers.scheduler:validate_dflash_request",
        "the name that the hook must reach",
        "SGLang asks the worker instead",
        ("req", "enable_overlap"),
    ),
    Touch(
        "sglang.srt.speculative.spec_sampling_mask:validate_spec_sampling_mask_request",
        "hooked (around): refuses sampling masks that SGLang's own worker cannot give, and ours can",
        "SGLang asks the worker instead",
        ("req", "spec_algorithm"),
    ),
    Touch(
        "sglang.srt.managers.scheduler:validate_spec_sampling_mask_request",
        "the name that the hook must reach",
        "SGLang asks the worker instead",
        ("req", "spec_algorithm"),
    ),
    Touch("sglang.srt.runtime_context:get_exec", "is inference deterministic?", "never: public"),
    Touch(
        "sglang.srt.managers.schedule_batch:Req",
        "read to tell which requests are not served exactly",
        "never: the request itself",
        (
            "origin_input_ids",
            "vocab_size",
            "sampling_params",
        ),
    ),
    Touch(
        "sglang.srt.sampling.sampling_params:SamplingParams",
        "read to tell which requests are not served exactly",
        "never: the request itself",
        (
            "min_p",
            "beam_width",
            "watermark",
        ),
    ),
)


class Refusal(NamedTuple):
    """One kind of request that is refused: what it asks for, how to tell, and what to do instead."""

    feature: str
    asked: Callable[[Any], Any]  # SGLang's request -> true where it asks for the feature
    remedy: str
    reason: str = "sglang-dflash does not serve {feature} exactly yet: {remedy}."  # of the answer


def _outside_vocabulary(req) -> bool:
    """Whether an id has no embedding row: on a host SGLang would end, elsewhere read what is not there.

    Multimodal prompts hold ids that stand for images, and are left to SGLang.
    """
    ids = req.origin_input_ids
    if not ids or req.multimodal_inputs is not None:
        return False
    # In one pass: a negative id is a very large one without its sign.
    return bool(np.asarray(ids, dtype=np.int64).view(np.uint64).max() >= req.vocab_size)


def _seeded_min_p(req) -> bool:
    """Whether SGLang's sampler would assert, which ends the scheduler: this mode gives every request a seed."""
    if req.sampling_params.min_p <= 0:
        return False
    from sglang.srt.runtime_context import get_exec

    return get_exec().deterministic.enable_deterministic_inference


def _empty(req) -> bool:
    """Whether there is nothing to begin with: SGLang looks for it only where a request is one prompt, and would end."""
    return not req.origin_input_ids and req.multimodal_inputs is None


REFUSALS = (
    Refusal("empty prompts", _empty, "use at least one token", "input_ids are empty: {remedy}."),
    Refusal(
        "ids outside the vocabulary",
        _outside_vocabulary,
        "use the target's tokenizer",
        "input_ids hold an id outside the vocabulary of {req.vocab_size}: {remedy}.",
    ),
    Refusal(
        "beam search",
        lambda req: (req.sampling_params.beam_width or 1) > 1,
        "drop beam_width, or serve without DFLASH",
    ),
    Refusal("watermarking", lambda req: req.sampling_params.watermark, "drop it, or serve without DFLASH"),
    Refusal(
        "seeded min_p",
        _seeded_min_p,
        "drop min_p, or serve without --enable-deterministic-inference",
        "min_p cannot be seeded: {remedy}.",
    ),
)


def find_refusal(req) -> Refusal | None:
    """The first kind of ``REFUSALS`` that ``req`` is of, or None where it is served exactly."""
    return next((row for row in REFUSALS if row.asked(req)), None)


def reason_of(row: Refusal, req) -> str:
    """Why ``req`` is not served, ending with what to do."""
    return row.reason.format(feature=row.feature, remedy=row.remedy, req=req)


def table() -> str:
    """``REFUSALS`` as a markdown table; docs/options.md holds it, and a test compares."""
    rows = ["| Refused | What to do |", "|---|---|"]
    return "\n".join(rows + [f"| {row.feature} | {row.remedy} |" for row in REFUSALS])


def install(count: Callable[[str], None] | None = None) -> None:
    """Have this process's requests validated; called where our worker is chosen, and nowhere else.

    The function to hook lives in a heavy module, which the scheduler has loaded by then. count: takes the feature of
    every request that is refused.
    """
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register(VALIDATE, functools.partial(_validate, count), HookType.AROUND)
    HookRegistry.register(VALIDATE_MASK, _validate_mask, HookType.AROUND)
    HookRegistry.apply_hooks()
    scheduler = sys.modules.get(SCHEDULER)
    for hooked in (VALIDATE, VALIDATE_MASK) if scheduler is not None else ():
        if getattr(getattr(scheduler, hooked.rpartition(".")[2]), "__wrapped__", None) is None:
            raise DFlashError("sglang", f"requests cannot be validated: {hooked} is not hooked", "reinstall SGLang")


def _validate(count, original, req, enable_overlap) -> str | None:
    # SGLang's own asks only whether hidden states are wanted under overlap scheduling, which its worker cannot give.
    row = find_refusal(req)
    if row is None:
        return None
    if count is not None:
        count(row.feature)
    return reason_of(row, req)


def _validate_mask(original, req, spec_algorithm) -> str | None:
    """None: masks are the sampler's own, whatever filters it applies. What plain decoding refuses is refused before."""
    return None
