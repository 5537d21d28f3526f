"""Seeds on a host CPU, where the kernels of ``--enable-deterministic-inference`` cannot run."""

import os

from sglang.srt.arg_groups import choices
from sglang.srt.plugins.hook_registry import HookRegistry, HookType

from sglang_dflash.host.contract import Touch
from sglang_dflash.kernels.seeded_hash import murmur_hash32

_BATCH_INVARIANT = "sglang.srt.batch_invariant_ops"
_HASH = "sglang.kernels.ops.sampling.murmur_hash"
TOUCHES = (
    Touch(
        "sglang.srt.arg_groups.choices:DETERMINISTIC_ATTENTION_BACKEND_CHOICES",
        "our attention backend is added: without the option SGLang ignores a request's seed",
        "never: public",
    ),
    Touch(
        "sglang.srt.arg_groups.choices:add_deterministic_attention_backend_choices",
        "adds it",
        "never: public",
    ),
    Touch(
        "torch._dynamo.config:disable",
        "TORCHDYNAMO_DISABLE: SGLang compiles its seeded draw; a host may lack a C++ compiler, and gains nothing",
        "SGLang compiles its helpers on accelerators only",
    ),
    Touch(
        f"{_BATCH_INVARIANT}:enable_batch_invariant_mode",
        "replaced: swaps Triton kernels in, and raises without an accelerator",
        "SGLang asks the platform",
        ("enable_bmm",),
    ),
    Touch(
        f"{_HASH}:murmur_hash32",
        "replaced: on a host it needs a compiled kernel that SGLang's wheel for GPUs lacks",
        "SGLang has a torch version of it",
        ("seed", "positions", "col_indices"),
    ),
)


def serve_seeds(backend: str) -> None:
    """Let attention ``backend`` serve seeded requests (once per process, before arguments are resolved).

    The sampler then draws every token by (seed, position) alone. The logits keep the last bits that the
    batch's shape gives them, which in float32 changes a draw only at a tie.
    """
    if backend not in choices.DETERMINISTIC_ATTENTION_BACKEND_CHOICES:
        choices.add_deterministic_attention_backend_choices([backend])
    HookRegistry.register(f"{_BATCH_INVARIANT}.enable_batch_invariant_mode", _keep_kernels, HookType.REPLACE)
    HookRegistry.register(f"{_HASH}.murmur_hash32", murmur_hash32, HookType.REPLACE)
    # SGLang compiles its seeded draw with torch.compile; a host may lack a C++ compiler, and gains nothing.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")


def _keep_kernels(enable_bmm: bool = True) -> None:
    return None
