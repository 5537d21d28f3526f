"""SGLang's own sampler, run at every node of a proposal, so that sampling is plain decoding's by construction."""

import torch
from sglang.srt.model_executor.model_runner import SamplingPrewarmResult
from sglang.srt.sampling.sampling_batch_info import SamplingBatchInfo

from sglang_dflash.host.contract import Touch

TOUCHES = (
    Touch(
        "sglang.srt.model_executor.model_runner:SamplingPrewarmResult",
        "what a rehearsal of sampling reports",
        "an interface to sample several positions per request",
        ("sampling_input_bytes", "sampling_headroom_bytes"),
    ),
    Touch(
        "sglang.srt.sampling.sampling_batch_info:SamplingBatchInfo",
        "sampling parameters repeated for every node of a request",
        "an interface to sample several positions per request",
        (
            "temperatures",
            "top_ps",
            "top_ks",
            "min_ps",
            "sampling_seed",
            "is_all_greedy",
            "is_any_greedy",
            "need_top_p_sampling",
            "need_top_k_sampling",
            "need_min_p_sampling",
            "npu_top_k_top_p_eligible",
            "max_top_k",
            "vocab_size",
            "device",
            "logit_bias",
            "sampling_mask_batch_indices",
            "sampling_support_logprobs_capture_indices",
        ),
    ),
    Touch(
        "sglang.srt.layers.sampler:Sampler.forward",
        "the target's own sample at every node",
        "an interface to sample several positions per request",
        ("logits_output", "sampling_info", "return_logprob", "top_logprobs_nums", "token_ids_logprobs", "positions"),
    ),
)

__all__ = ["SamplingPrewarmResult", "largest_batch", "repeat_per_node", "sampled_batch"]

_PER_REQUEST = ("temperatures", "top_ps", "top_ks", "min_ps", "sampling_seed")
_ROW_NUMBERS = ("sampling_mask_batch_indices", "sampling_support_logprobs_capture_indices")
_PER_BATCH = (
    "is_all_greedy",
    "is_any_greedy",
    "need_top_p_sampling",
    "need_top_k_sampling",
    "need_min_p_sampling",
    "npu_top_k_top_p_eligible",
    "max_top_k",
    "vocab_size",
    "device",
)


def repeat_per_node(info: SamplingBatchInfo, width: int) -> SamplingBatchInfo:
    """``info`` of [bs] requests as that of [bs * width] rows, request-major.

    All else that ``info`` holds is left at its empty default: rules have changed the logits by then, and the rest
    belongs to requests that are refused. Under overlap scheduling such a request is in one round before it ends, and
    its rows would not be those of nodes.
    """
    repeated = {
        name: None if (value := getattr(info, name)) is None else value.repeat_interleave(width, dim=0)
        for name in _PER_REQUEST
    }
    rows = {
        name: None if (value := getattr(info, name)) is None else _rows_of_nodes(value, width) for name in _ROW_NUMBERS
    }
    return SamplingBatchInfo(**repeated, **rows, **{name: getattr(info, name) for name in _PER_BATCH})


def _rows_of_nodes(requests: torch.Tensor, width: int) -> torch.Tensor:
    """Numbers of requests [n] -> those of their rows [n * width]."""
    return (requests.unsqueeze(1) * width + torch.arange(width, device=requests.device)).view(-1)


def largest_batch(runner, width: int) -> int:
    """Most requests that a verify pass of ``width`` nodes each can have."""
    most = runner.max_decode_logits_rows() // width
    return max(1, most if runner.max_running_requests is None else min(most, int(runner.max_running_requests)))


def sampled_batch(bs: int, vocab_size: int, device) -> SamplingBatchInfo:
    """Parameters of ``bs`` requests that sample with top-p and min-p, the dearest filters."""
    row = torch.ones(bs, dtype=torch.float32, device=device)
    return SamplingBatchInfo(
        temperatures=row.unsqueeze(1),
        top_ps=0.95 * row,
        top_ks=torch.full((bs,), vocab_size, dtype=torch.int32, device=device),
        min_ps=0.01 * row,
        is_all_greedy=False,
        is_any_greedy=False,
        need_top_p_sampling=True,
        need_top_k_sampling=False,
        need_min_p_sampling=True,
        vocab_size=vocab_size,
    )
