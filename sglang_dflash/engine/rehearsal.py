"""A sampled verify pass of the largest batch, rehearsed at start: its memory is known before it is needed."""

import logging
from types import SimpleNamespace

import torch

from sglang_dflash.engine.verify.choice import TargetChoice
from sglang_dflash.host.sampler_api import SamplingPrewarmResult, largest_batch, sampled_batch
from sglang_dflash.types import Proposal

logger = logging.getLogger(__name__)


def rehearse_sampling(runner, choose: TargetChoice, width: int) -> SamplingPrewarmResult:
    """Choose tokens from empty logits [bs * width, V] of the largest batch, and report the peak to SGLang.

    SGLang sizes the KV pool after capture so that this much stays free. Off a GPU nothing is rehearsed.
    """
    if torch.device(runner.device).type != "cuda":
        return runner.prewarm_sampling()
    bs, vocab_size = largest_batch(runner, width), runner.model_config.vocab_size
    logits = torch.zeros((bs * width, -(-vocab_size // choose.shards)), dtype=torch.float32, device=runner.device)
    batch = SimpleNamespace(sampling_info=sampled_batch(bs, vocab_size, runner.device))
    nodes = torch.zeros((bs, width), dtype=torch.int64, device=runner.device)
    proposal = Proposal(nodes, None, nodes)
    # Once for what kernels keep for good, once for the peak.
    choose(logits, batch, proposal)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    choose(logits, batch, proposal)
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    given = logits.numel() * logits.element_size()
    result = SamplingPrewarmResult(sampling_input_bytes=given, sampling_headroom_bytes=peak + given)
    runner.sampling_prewarm_result = result
    logger.info("sglang-dflash: sampling %d x %d rows needs %.2f GB", bs, width, result.sampling_headroom_bytes / 2**30)
    return result
