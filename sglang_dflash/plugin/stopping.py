"""Where an answer ends: at the first token that ends it, also where a round emits many.

SGLang looks for stop strings and patterns in all that a round has emitted, in the order in which they were asked for,
and for stop tokens only then: of several ends in one round the last may win. Here such a request's tokens are looked
at one by one, as plain decoding does.
"""

from sglang_dflash.errors import DFlashError
from sglang_dflash.host.contract import Touch

FINISH = "sglang.srt.managers.schedule_batch.Req.update_finish_state"

TOUCHES = (
    Touch(
        "sglang.srt.managers.schedule_batch:Req.update_finish_state",
        "hooked (around): tokens of a request with stop strings or patterns are looked at one by one",
        "SGLang ends a request at the first end in a round",
        ("self", "new_accepted_len"),
    ),
    Touch(
        "sglang.srt.managers.schedule_batch:Req",
        "where an answer ends, and what ends it",
        "SGLang ends a request at the first end in a round",
        ("sampling_params",),
        ("output_ids", "finished_len", "grammar", "to_finish", "reasoning_tokens"),
    ),
    Touch(
        "sglang.srt.sampling.sampling_params:SamplingParams",
        "whether a request has stop strings or patterns",
        "never: the request itself",
        ("stop_strs", "stop_regex_strs"),
    ),
)


def install() -> None:
    """Called where our worker is chosen, and nowhere else."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register(FINISH, _update_finish_state, HookType.AROUND)
    HookRegistry.apply_hooks()
    if FINISH not in HookRegistry._patched:
        raise DFlashError("sglang", f"ends cannot be found: {FINISH} is not hooked", "reinstall SGLang")


def _update_finish_state(original, req, new_accepted_len: int = 1) -> None:
    params = req.sampling_params
    if new_accepted_len > 1 and (params.stop_strs or params.stop_regex_strs) and req.to_finish is None:
        _one_by_one(original, req, new_accepted_len)
    else:
        original(req, new_accepted_len)
    if req.finished_len is not None and req.reasoning_tokens > req.finished_len:
        # Counted over the whole round before its end was known.
        req.reasoning_tokens = req.finished_len


def _one_by_one(original, req, count: int) -> None:
    """As if the last ``count`` tokens had come one at a time; those behind the end stay, as SGLang keeps them."""
    if req.finished():
        return
    tokens, grammar = req.output_ids[-count:], req.grammar
    del req.output_ids[-count:]
    for at, token in enumerate(tokens, 1):
        req.output_ids.append(token)
        # The grammar has seen the whole round; SGLang cuts rounds behind its end, so that it can end the last only.
        req.grammar = grammar if at == count else None
        original(req, 1)
        if req.finished():
            if req.finished_len is None:
                req.finished_len = len(req.output_ids)
            req.output_ids.extend(tokens[at:])
            break
    req.grammar = grammar
