"""A batch of requests that do not exist, for rounds that are played before there are any."""

from collections.abc import Sequence
from types import SimpleNamespace

import torch
from sglang.srt.managers.schedule_batch import ScheduleBatch
from sglang.srt.model_executor.forward_batch_info import ForwardMode
from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

from sglang_dflash.host.contract import Touch

TOUCHES = (
    Touch(
        "sglang.srt.managers.schedule_batch:ScheduleBatch",
        "made for rounds that are timed at start",
        "a public interface for out-of-tree speculative workers",
        (
            "reqs",
            "req_to_token_pool",
            "token_to_kv_pool_allocator",
            "model_config",
            "device",
            "forward_mode",
            "spec_algorithm",
            "seq_lens",
            "seq_lens_cpu",
            "seq_lens_sum",
            "orig_seq_lens",
            "req_pool_indices",
        ),
    ),
)


class _Nobody:
    """What is asked of a request on the way to a verify pass."""

    rid, lora_id, grammar, token_type_ids = "", None, None, None
    kv = SimpleNamespace(mamba_next_track_idx=None)
    origin_input_ids: Sequence[int] = ()
    output_ids: Sequence[int] = ()
    sampling_params = SimpleNamespace(max_new_tokens=0)


_NOBODY = _Nobody()


def played_batch(runner, bs: int, context: int) -> ScheduleBatch:
    """``bs`` decoding requests with prefixes of ``context`` tokens, all of them in the pool's slot for padding.

    runner: the target's, with pools and before the first request: row 0 of its table is all zeros.
    """
    lens = torch.full((bs,), context, dtype=torch.int64)
    return ScheduleBatch(
        reqs=[_NOBODY] * bs,
        req_to_token_pool=runner.req_to_token_pool,
        token_to_kv_pool_allocator=runner.token_to_kv_pool_allocator,
        model_config=runner.model_config,
        device=str(runner.device),
        forward_mode=ForwardMode.DECODE,
        spec_algorithm=SpeculativeAlgorithm.DFLASH,
        seq_lens=lens.to(runner.device),
        seq_lens_cpu=lens,
        seq_lens_sum=bs * context,
        orig_seq_lens=lens.int().to(runner.device),
        req_pool_indices=torch.zeros(bs, dtype=torch.int64, device=runner.device),
    )
