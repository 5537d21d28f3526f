"""How much memory a pair takes in one rank: weights, KV cache, recurrent state, and what SGLang keeps free."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sglang_dflash.checkpoints.checks.case import Case
from sglang_dflash.checkpoints.checks.findings import ERROR, NOTE, WARNING, Finding
from sglang_dflash.checkpoints.checks.serving import stored_dtype
from sglang_dflash.tools.doctor.layers import FULL, SLIDING, STATE, Layers
from sglang_dflash.tools.doctor.machine import Machine

KV_BYTES = {"fp8_e4m3": 1, "fp8_e5m2": 1, "bf16": 2, "bfloat16": 2, "float16": 2, "float32": 4}
CONTEXT, CONCURRENCY = 8192, 8  # where nobody says
SWA_SHARE = 0.8  # SGLang's --swa-full-tokens-ratio: tokens of sliding layers per token of full layers
STATE_SLOTS = 3  # state slots per running request under a radix cache, before those for tracking
TRACKING_SLOTS = {"extra_buffer": 2, "extra_buffer_lazy": 1, "no_buffer": 0}
CPU_STATE_SLOTS = 8  # the CPU platform's default
_GIB = 2**30


@dataclass(frozen=True)
class Part:
    """One row of the table: bytes in one rank, and how they come about."""

    name: str
    size: int
    how: str


@dataclass(frozen=True)
class Budget:
    """All parts, and what they are for."""

    parts: tuple[Part, ...]
    context_length: int
    concurrency: int
    width: int  # positions of a verify pass per request
    reserve: int  # bytes that SGLang's own estimate leaves to activations and graphs
    kv_per_token: float  # bytes in one rank, target and draft
    state_per_width: tuple[tuple[int, int], ...]  # (verify width, bytes of state buffers per request)

    @property
    def total(self) -> int:
        """Bytes of one rank without the reserve."""
        return sum(part.size for part in self.parts)


def budget(
    case: Case, layers: Layers, weights: tuple[int, int], machine: Machine, context: int | None = None
) -> Budget:
    """The parts for a case.

    Args:
        weights: bytes of target and draft, all ranks together.
        context: tokens that each request takes; None for a common length.
    """
    plan, ranks = case.plan, case.plan.tp_size
    context = context or min(CONTEXT, case.context_length or CONTEXT)
    concurrency = plan.concurrency or CONCURRENCY
    width = case.verify_width
    kv = list(_kv_parts(case, layers, context, concurrency))
    parts = [
        Part("target weights", weights[0] // ranks, _split(ranks)),
        Part("draft weights", weights[1] // ranks, _split(ranks)),
        *kv,
        *_state_parts(case, layers, concurrency, width),
    ]
    per_width = tuple((w, _state_per_request(case, layers, w)) for w in sorted({1, 4, 8, 16, 32, width}))
    per_width = per_width if layers.state else ()
    reserve = reserved(machine, ranks)
    per_token = sum(part.size for part in kv) / (concurrency * _held(case, context))
    return Budget(tuple(parts), context, concurrency, width, reserve, per_token, per_width)


def reserved(machine: Machine, ranks: int) -> int:
    """Bytes beside the static part, as SGLang's default fraction leaves them."""
    if machine.on_cpu or not machine.memory:
        return 0
    mebibytes = (
        512 + 1.5 * 8192 + ranks / 8 * 1024 if machine.memory > 60 * _GIB else 512 + 1.5 * 2048 + ranks / 8 * 1024
    )
    return int(mebibytes * 2**20)


def memory_findings(result: Budget, machine: Machine, ranks: int) -> Iterator[Finding]:
    """Whether it fits."""
    if not machine.memory:
        yield Finding("memory", NOTE, "machine", "its memory is not known", "give --gpu and --gpu-memory")
        return
    if machine.count and ranks > machine.count:
        what = f"is {ranks}, this machine has {machine.count}"
        yield Finding("memory", WARNING, "--tp-size", what, "use a machine with more GPUs")
    # Each rank of the CPU platform takes its part of the same memory.
    needed = result.total * (ranks if machine.on_cpu else 1)
    usable = machine.memory - result.reserve
    weights = sum(part.size for part in result.parts if "weights" in part.name)
    if weights > usable:
        what = f"takes {gib(weights)}, of {gib(usable)} that can be used"
        yield Finding("memory", ERROR, "weights", what, "raise --tp-size, or take a quantised checkpoint")
    elif needed > usable:
        what = (
            f"{gib(needed)} for {result.concurrency} requests of {result.context_length} tokens, "
            f"of {gib(usable)} that can be used"
        )
        remedy = "lower --context or --concurrency, raise --tp, or use --kv-dtype fp8_e4m3"
        yield Finding("memory", WARNING, "memory", f"takes {what}", remedy)


def fraction(result: Budget, machine: Machine, published: float | None) -> float | None:
    """``--mem-fraction-static`` to use; None on the CPU platform, or where the memory is not known."""
    if machine.on_cpu or not machine.memory:
        return None
    largest = math.floor(100 * (1 - result.reserve / machine.memory)) / 100
    needed = math.ceil(100 * result.total / machine.memory) / 100
    return published if published and needed <= published <= largest else largest


def kv_room(result: Budget, machine: Machine, share: float | None) -> int | None:
    """Tokens of KV cache beside weights and state at a memory fraction; None where there is none."""
    if share is None:
        return None
    rest = share * machine.memory - sum(part.size for part in result.parts if "KV" not in part.name)
    return max(0, int(rest / result.kv_per_token))


def gib(size: float) -> str:
    """Bytes in words."""
    if size < 2**20:
        return f"{size / 2**10:.1f} KiB"
    return f"{size / _GIB:.2f} GiB" if size >= _GIB / 10 else f"{size / 2**20:.1f} MiB"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _split(ranks: int) -> str:
    return f"split over {ranks} ranks" if ranks > 1 else "all of them"


def _kv_parts(case: Case, layers: Layers, context: int, concurrency: int) -> Iterator[Part]:
    ranks, item = case.plan.tp_size, kv_item(case)
    tokens = concurrency * _held(case, context)
    full, sliding = layers.kv_per_token(FULL, ranks), layers.kv_per_token(SLIDING, ranks)
    if full:
        yield Part(
            "target KV", tokens * full * item, f"{_many(layers.count(FULL), 'full layer')}, {full * item} B a token"
        )
    if sliding:
        share = SWA_SHARE if full else 1.0
        how = f"{_many(layers.count(SLIDING), 'sliding layer')}, {sliding * item} B for {share:.0%} of the tokens"
        yield Part("target KV, sliding", int(tokens * share) * sliding * item, how)
    row = 2 * max(1, case.draft.num_kv_heads // ranks) * case.draft.head_dim * case.draft.num_layers
    # A quantised cache is the target's alone.
    draft_item = max(item, 2)
    how = f"{_many(case.draft.num_layers, 'layer')}, {row * draft_item} B a token, in the target's slots"
    yield Part("draft KV", tokens * row * draft_item, how)


def _state_parts(case: Case, layers: Layers, concurrency: int, width: int) -> Iterator[Part]:
    if layers.state is None:
        return
    slots = concurrency * state_slots(case) + 1
    one = _state_bytes(case, layers)
    yield Part("recurrent state", slots * one, f"{slots} slots of {gib(one)}, {_many(layers.count(STATE), 'layer')}")
    scratch = _scratch_bytes(case, layers, width)
    how = f"{concurrency + 1} requests x {width} positions: {gib(scratch)} each"
    yield Part("state of drafted positions", (concurrency + 1) * scratch, how)


def state_slots(case: Case) -> int:
    """State slots per running request, radix cache on."""
    if case.plan.on_cpu:
        return CPU_STATE_SLOTS
    return STATE_SLOTS + TRACKING_SLOTS.get(case.plan.mamba or "extra_buffer", 2)


def _state_per_request(case: Case, layers: Layers, width: int) -> int:
    if layers.state is None:
        return 0
    return state_slots(case) * _state_bytes(case, layers) + _scratch_bytes(case, layers, width)


def _state_bytes(case: Case, layers: Layers) -> int:
    """One snapshot of all state layers in one rank."""
    state = layers.state
    inputs = state.conv_channels * state.conv_width * _conv_item(case)
    return layers.count(STATE) * (state.temporal * _temporal_item(case.text) + inputs) // case.plan.tp_size


def _scratch_bytes(case: Case, layers: Layers, width: int) -> int:
    """State and convolution inputs of every position of one verify pass."""
    state = layers.state
    inputs = state.conv_channels * state.scratch_columns(width, tree=case.plan.on_cpu) * _conv_item(case)
    return layers.count(STATE) * (width * state.temporal * _temporal_item(case.text) + inputs) // case.plan.tp_size


def _temporal_item(text: Mapping[str, Any]) -> int:
    """SGLang keeps the state in float32 unless the config says otherwise."""
    return {"float16": 2, "bfloat16": 2}.get(str(text.get("mamba_ssm_dtype")).removeprefix("torch."), 4)


def _conv_item(case: Case) -> int:
    """SGLang keeps convolution inputs in bfloat16; the CPU platform in a float32 model's own format."""
    return 4 if case.plan.on_cpu and kv_item(case) == 4 else 2


def kv_item(case: Case) -> int:
    """Bytes of one element of the KV cache."""
    if case.plan.kv_dtype != "auto":
        return KV_BYTES[case.plan.kv_dtype]
    dtype = case.plan.dtype if case.plan.dtype != "auto" else stored_dtype(case.target)
    return 4 if dtype == "float32" and (case.plan.on_cpu or case.plan.dtype == "float32") else 2


def _held(case: Case, context: int) -> int:
    """Tokens that a request holds: its context and the window that is being verified, in whole pages."""
    page = case.plan.page_size or 1
    return -(-(context + case.block_size) // page) * page
