"""What an update of weights needs of SGLang: the ranks that share a model."""

import torch
from sglang.srt.layers.layernorm import GemmaRMSNorm
from sglang.srt.runtime_context import get_parallel

from sglang_dflash.host.contract import Touch

__all__ = ["agree", "refresh_layers"]


def agree(success: bool, message: str) -> tuple[bool, str]:
    """The ranks' common answer, the same on every rank: success where all have it, else what failed and where.

    Every rank of the tensor-parallel group has to call it.
    """
    group = get_parallel().tp_group
    if group.world_size == 1:
        return success, message
    answers: list = [None] * group.world_size
    torch.distributed.all_gather_object(answers, (success, message), group=group.cpu_group)
    failures = [f"rank {rank}: {text}" for rank, (fine, text) in enumerate(answers) if not fine]
    return (False, " ".join(failures)) if failures else (success, message)


def refresh_layers(model: torch.nn.Module) -> None:
    """Have SGLang's layers compute again what they keep of their weights: copies past a weight's loader miss it."""
    for module in model.modules():
        if isinstance(module, GemmaRMSNorm):
            module.refresh_gemma_weight()


TOUCHES = (
    Touch(
        "sglang.srt.layers.layernorm:GemmaRMSNorm.refresh_gemma_weight",
        "after an update that copied directly",
        "SGLang refreshes it after those, too",
    ),
    Touch(
        "sglang.srt.runtime_context:get_parallel",
        "the group of ranks that update together",
        "never: public",
    ),
)
