"""Packed copies of a model's large float32 weights, made once it is loaded."""

import logging
from collections.abc import Iterable
from functools import partial
from typing import Any

import psutil
import torch
from torch import nn

from sglang_dflash.cpu.host.operators import UnquantizedEmbeddingMethod, UnquantizedLinearMethod
from sglang_dflash.engine.updates.derived import after_updates
from sglang_dflash.kernels.dense.packed import MIN_ELEMENTS, PackedMatrix

logger = logging.getLogger(__name__)

MEMORY_SHARE = 0.5  # of the free memory, which the copies may take


def large_layers(model: nn.Module) -> dict[Any, int]:
    """The layers of ``model`` with large plain weights, its head last, and how many rows of each are multiplied by."""
    modules: Iterable[Any] = model.modules()
    linears = [layer for layer in modules if isinstance(_method(layer), UnquantizedLinearMethod)]
    found = {layer: layer.weight.shape[0] for layer in linears if _is_large(layer.weight)}
    head: Any = getattr(model, "lm_head", None)
    if isinstance(_method(head), UnquantizedEmbeddingMethod) and _is_large(head.weight):
        # Rows of padding, and of tokens that adapters add, are no part of a head.
        found[head] = int(head.shard_indices.num_org_elements)
    return found


def pack(layers: dict[Any, int], model: nn.Module, free_bytes: int | None = None) -> None:
    """Give the float32 ones of ``model``'s ``layers`` packed copies, and say what they take.

    None of them where they would take more than ``MEMORY_SHARE`` of ``free_bytes`` (None: of what is free now).
    """
    packed = {layer: PackedMatrix(layer, rows) for layer, rows in layers.items() if layer.weight.dtype == torch.float32}
    if not packed or not torch.backends.mkldnn.is_available():
        return
    needed = sum(matrix.bytes for matrix in packed.values())
    free = psutil.virtual_memory().available if free_bytes is None else free_bytes
    if needed > MEMORY_SHARE * free:
        message = "CPU platform: weights are not packed: %.2f GB of copies for %.2f GB of free memory"
        logger.info(message, needed / 2**30, free / 2**30)
        return
    for layer, matrix in packed.items():
        matrix.pack()
        layer.packed = matrix
    after_updates(model, partial(_drop, list(packed.values())))
    logger.info("CPU platform: %d weights packed, %.2f GB beside their own", len(packed), needed / 2**30)


def _drop(matrices: list[PackedMatrix]) -> None:
    """The next product copies anew: a push of many small updates does not pay for each."""
    for matrix in matrices:
        matrix.drop()


def _method(layer):
    return getattr(layer, "quant_method", None)


def _is_large(weight: torch.Tensor) -> bool:
    return weight.dim() == 2 and weight.numel() >= MIN_ELEMENTS
