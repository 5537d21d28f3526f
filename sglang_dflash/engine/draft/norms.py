"""Which RMS norm a draft was trained with."""

import torch
from torch import nn

from sglang_dflash.checkpoints.config import DraftConfig
from sglang_dflash.host.model_api import GemmaRMSNorm, RMSNorm


def norm_class(config: DraftConfig) -> type[nn.Module]:
    """SGLang's norm: by its weight, or by 1 + weight (Gemma)."""
    return GemmaRMSNorm if config.gemma_norms else RMSNorm


def added(norm) -> float:
    """What ``norm`` adds to its weight before it multiplies."""
    return 1.0 if isinstance(norm, GemmaRMSNorm) else 0.0


def factor(norm) -> torch.Tensor:
    """What ``norm`` multiplies by, [width]: its weight, in fp32 where one is added to it."""
    return norm.weight.float() + 1.0 if isinstance(norm, GemmaRMSNorm) else norm.weight
