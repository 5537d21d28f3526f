"""SGLang's custom logit processors, run on every node of a proposal."""

from typing import Any

import torch
from sglang.srt.layers.sampler import apply_custom_logit_processor
from sglang.srt.sampling.sampling_batch_info import ProcessorEntry, SamplingBatchInfo

from sglang_dflash.host.contract import Touch
from sglang_dflash.host.sampler_api import repeat_per_node

_NODES = "an interface to change the logits of several positions per request"
TOUCHES = (
    Touch(
        "sglang.srt.layers.sampler:apply_custom_logit_processor",
        "runs the processors of a batch, here of its nodes",
        _NODES,
        ("logits", "sampling_batch_info"),
    ),
    Touch(
        "sglang.srt.sampling.sampling_batch_info:ProcessorEntry",
        "a processor and its rows, here repeated for every node of a request",
        _NODES,
        ("processor", "rows", "indices"),
    ),
    Touch(
        "sglang.srt.sampling.sampling_batch_info:SamplingBatchInfo",
        "which requests have a processor, and what they hand it",
        _NODES,
        ("has_custom_logit_processor", "custom_params", "custom_logit_processor"),
    ),
)

REQUEST = "__req__"  # where SGLang puts the request itself among a processor's parameters


def run_processors(logits: torch.Tensor, info: SamplingBatchInfo, width: int, params: list[Any]) -> None:
    """Change ``logits`` [bs * width, V] in place; params: one entry per row, as ``info.custom_params`` per request."""
    nodes = repeat_per_node(info, width)
    offsets = torch.arange(width, device=logits.device)
    nodes.has_custom_logit_processor, nodes.custom_params = True, params
    nodes.custom_logit_processor = {
        key: ProcessorEntry(
            processor=entry.processor,
            rows=[row * width + node for row in entry.rows for node in range(width)],
            indices=(entry.indices.unsqueeze(1) * width + offsets).view(-1),
        )
        for key, entry in info.custom_logit_processor.items()
    }
    apply_custom_logit_processor(logits, nodes)
