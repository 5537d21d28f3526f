"""A verify pass's logits under tensor parallelism: left in shards of the vocabulary until it is known what is wanted.

SGLang gathers whole rows of logits on every rank; a greedy choice needs each shard's largest one.
"""

import torch
from sglang.srt.layers.logits_processor import LogitsProcessor

from sglang_dflash.host.contract import Touch

_SHARDS = "SGLang defers the gather of verify passes for every target (today: where it caps logits, on CUDA)"
TOUCHES = (
    Touch(
        "sglang.srt.layers.logits_processor:LogitsProcessor",
        "the target's: its gather over ranks is put off in verify passes",
        _SHARDS,
    ),
    *(
        Touch(f"sglang.srt.layers.logits_processor:LogitsProcessor.{name}", "SGLang's own deferral", _SHARDS)
        for name in ("is_deferred_shard", "deferred_argmax", "finish_deferred_gather")
    ),
    Touch(
        "sglang.srt.layers.logits_processor:LogitsProcessor._get_logits",
        "wrapped on the target's processor: tells verify passes from others",
        _SHARDS,
        ("hidden_states", "lm_head", "logits_metadata"),
    ),
)


class WholeLogits:
    """One rank, or a target whose logits SGLang brings together in another way: rows are whole already."""

    shards = 1

    def argmax(self, logits: torch.Tensor) -> torch.Tensor:
        """The most likely token [rows] int64 of logits [rows, V]."""
        return logits.argmax(dim=-1)

    def whole(self, logits: torch.Tensor) -> torch.Tensor:
        """logits [rows, V] of the whole vocabulary."""
        return logits


class CappedLogits:
    """SGLang's own deferral, which it has for logits that it caps and gathers in one kernel, on CUDA."""

    def __init__(self, processor: LogitsProcessor, group):
        self._processor, self.shards = processor, group.world_size
        processor.defer_verify_gather = True

    def argmax(self, logits: torch.Tensor) -> torch.Tensor:
        """As ``ShardedLogits``."""
        if self._processor.is_deferred_shard(logits):
            return self._processor.deferred_argmax(logits)
        return logits.argmax(dim=-1)

    def whole(self, logits: torch.Tensor) -> torch.Tensor:
        """As ``ShardedLogits``."""
        return self._processor.finish_deferred_gather(logits) if self._processor.is_deferred_shard(logits) else logits


class ShardedLogits:
    """Rows of a verify pass hold this rank's part of the vocabulary; other passes are gathered as ever."""

    def __init__(self, processor: LogitsProcessor, group):
        """Call before the target's graphs are captured. group: the tensor-parallel group."""
        self._group, self._vocab_size, self.shards = group, processor.vocab_size, group.world_size
        self._gather, self._get_logits = processor._logits_gatherer, processor._get_logits
        self._dtype = torch.float32  # of the head's own numbers, which SGLang widens to float32
        self._in_verify = False
        processor._logits_gatherer, processor._get_logits = self._gather_unless_verify, self._watch_mode

    def _watch_mode(self, hidden_states, lm_head, logits_metadata, *arguments, **options) -> torch.Tensor:
        self._in_verify = logits_metadata.forward_mode.is_target_verify()
        try:
            return self._get_logits(hidden_states, lm_head, logits_metadata, *arguments, **options)
        finally:
            self._in_verify = False

    def _gather_unless_verify(self, logits: torch.Tensor) -> torch.Tensor:
        if not self._in_verify:
            return self._gather(logits)
        self._dtype = logits.dtype
        return logits

    def argmax(self, logits: torch.Tensor) -> torch.Tensor:
        """The most likely token [rows] int64, of equal ones the first, from shards [rows, V / ranks]."""
        first = self._group.rank_in_group * logits.shape[-1]
        # The last shard is padded to the width of the others.
        own = logits[:, : max(1, min(logits.shape[-1], self._vocab_size - first))]
        best, token = own.max(dim=-1)
        if first >= self._vocab_size:
            best = torch.full_like(best, -torch.inf)
        best = self._group.all_gather(best.unsqueeze(0), dim=0)
        token = self._group.all_gather((token + first).unsqueeze(0), dim=0)
        # Ranks hold ascending tokens, so the first rank with the maximum has the first of equal ones.
        return token.gather(0, best.argmax(dim=0, keepdim=True)).squeeze(0)

    def whole(self, logits: torch.Tensor) -> torch.Tensor:
        """Shards [rows, V / ranks] -> logits [rows, V] of the whole vocabulary, float32."""
        return self._gather(logits.to(self._dtype))[:, : self._vocab_size].float()


def verify_logits(target: torch.nn.Module, tp_group) -> WholeLogits | CappedLogits | ShardedLogits:
    """How the logits of ``target``'s verify passes are read; called once, before graphs are captured."""
    processors = [module for module in target.modules() if isinstance(module, LogitsProcessor)]
    if tp_group.world_size == 1 or len(processors) != 1:
        return WholeLogits()
    (processor,) = processors
    other_ways = (
        processor.use_attn_tp_group,
        processor.use_tp_lm_head_all_to_all,
        processor.do_tensor_parallel_all_gather_dp_attn,
        not processor.do_tensor_parallel_all_gather,
    )
    if any(other_ways):
        return WholeLogits()
    return (CappedLogits if processor.final_logit_softcapping else ShardedLogits)(processor, tp_group)
