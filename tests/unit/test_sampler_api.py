"""What SGLang's sampler is given for the nodes of a batch."""

import dataclasses

import torch
from sglang.srt.sampling.sampling_batch_info import SamplingBatchInfo

from sglang_dflash.host.sampler_api import repeat_per_node

OF_NODES = ("temperatures", "top_ps", "top_ks", "min_ps", "sampling_seed")
OF_THE_BATCH = {
    "is_all_greedy": False,
    "is_any_greedy": True,
    "need_top_p_sampling": True,
    "need_top_k_sampling": True,
    "need_min_p_sampling": True,
    "npu_top_k_top_p_eligible": True,
    "max_top_k": 4,
    "vocab_size": 9,
    "device": "cpu",
}
OF_MASKS = {
    "sampling_mask_batch_indices": torch.tensor([1]),
    "sampling_support_logprobs_capture_indices": torch.tensor([0]),
}
# What rules have done by then, and what only refused requests have.
OF_OTHERS = {
    "logit_bias": torch.ones(2, 9),
    "has_custom_logit_processor": True,
    "custom_params": [{}, None],
    "custom_logit_processor": {1: "an entry"},
    "grammars": ["a grammar", None],
    "grammar_mask": "a mask",
    "penalizer_orchestrator": "penalties",
    "acc_additive_penalties": torch.ones(2, 9),
    "acc_scaling_penalties": torch.ones(2, 9),
    "rids_int": torch.arange(2),
    "bootstrap_room_ids_int": torch.arange(2),
    "return_sampling_masks": [True, False],
    "return_sampling_support_logprobs": [True, False],
    "sampling_mask_top_ks": [3, 1],
    "watermark_keys": torch.arange(2),
    "watermark_context_windows": torch.arange(2),
    "watermark_enabled": torch.tensor([True, False]),
    "watermark_candidates_host": [True, False],
    "has_watermark_candidates": True,
}


def test_nothing_of_refused_requests_reaches_the_sampler():
    """Under overlap scheduling they are in one round before they end."""
    fields = {field.name: field.default for field in dataclasses.fields(SamplingBatchInfo)}
    assert set(fields) == {*OF_NODES, *OF_THE_BATCH, *OF_MASKS, *OF_OTHERS}, "SGLang has a new field: whose is it?"
    of_nodes = {name: torch.tensor([[0.5], [2.0]]) if name == "temperatures" else torch.ones(2) for name in OF_NODES}
    nodes = repeat_per_node(SamplingBatchInfo(**of_nodes, **OF_THE_BATCH, **OF_MASKS, **OF_OTHERS), 4)
    assert len(nodes) == 8 and nodes.temperatures.view(-1).tolist() == [0.5] * 4 + [2.0] * 4
    assert {name: getattr(nodes, name) for name in OF_THE_BATCH} == OF_THE_BATCH
    assert {name: getattr(nodes, name) for name in OF_OTHERS} == {name: fields[name] for name in OF_OTHERS}
    assert nodes.sampling_mask_batch_indices.tolist() == [4, 5, 6, 7]
    assert nodes.sampling_support_logprobs_capture_indices.tolist() == [0, 1, 2, 3]
