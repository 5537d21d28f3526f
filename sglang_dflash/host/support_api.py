"""Sampling masks: which tokens plain decoding could have chosen in an emitted token's place, and how likely."""

import torch
from sglang.srt.layers.logits_processor import SamplingMaskOutput
from sglang.srt.speculative.spec_sampling_mask import SpeculativeSamplingMaskCapture

from sglang_dflash.host.contract import Touch
from sglang_dflash.types import Acceptance

_MASKS = "a public interface for out-of-tree speculative workers"
TOUCHES = (
    Touch(
        "sglang.srt.layers.logits_processor:SamplingMaskOutput",
        "the sampler's masks of all nodes, of which those of emitted tokens are returned",
        _MASKS,
        ("token_ids", "lengths", "selected_logprobs", "support_logprobs", "statuses", "num_accept_tokens"),
    ),
    Touch(
        "sglang.srt.speculative.spec_sampling_mask:SpeculativeSamplingMaskCapture",
        "masks of greedy batches: each emitted token alone",
        _MASKS,
        ("target_probs", "batch_indices", "max_top_k", "support_capture_indices"),
    ),
)


def wants_masks(info) -> bool:
    """Whether a request of SGLang's sampling parameters ``info`` asks for masks."""
    return info is not None and info.sampling_mask_batch_indices is not None


def greedy_masks(info, accepted: Acceptance) -> SamplingMaskOutput:
    """Masks of a batch that takes the most likely token everywhere."""
    capture = SpeculativeSamplingMaskCapture(
        target_probs=None,
        batch_indices=info.sampling_mask_batch_indices,
        max_top_k=1,
        support_capture_indices=info.sampling_support_logprobs_capture_indices,
    )
    return capture.build_output(out_tokens=accepted.emitted, commit_lens=accepted.commit_lens)


def emitted_masks(info, of_nodes: SamplingMaskOutput, accepted: Acceptance, width: int) -> SamplingMaskOutput:
    """Masks [n, D, ...] of emitted tokens out of the sampler's [n * width, ...] for the nodes of n requests."""
    asking = info.sampling_mask_batch_indices
    path = accepted.path[asking].clamp(min=0)

    def on_path(values: torch.Tensor, path: torch.Tensor) -> torch.Tensor:
        first = torch.arange(0, values.shape[0], width, device=values.device).unsqueeze(1)
        return values[path + first]

    supports = of_nodes.support_logprobs
    return SamplingMaskOutput(
        token_ids=on_path(of_nodes.token_ids, path),
        lengths=on_path(of_nodes.lengths, path),
        selected_logprobs=on_path(of_nodes.selected_logprobs, path),
        support_logprobs=None
        if supports is None
        else on_path(supports, path[info.sampling_support_logprobs_capture_indices]),
        statuses=on_path(of_nodes.statuses, path),
        num_accept_tokens=accepted.commit_lens[asking].clone(),
    )
