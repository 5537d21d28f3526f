"""What a speculative worker needs of SGLang: its base class, batches, results and placement."""

from sglang.srt.layers.logits_processor import LogitsProcessorOutput
from sglang.srt.managers.utils import GenerationBatchResult
from sglang.srt.model_executor.forward_batch_info import (
    CaptureHiddenMode,
    ForwardBatch,
    ForwardMode,
    enable_num_token_non_padded,
)
from sglang.srt.runtime_context import get_parallel, get_schedule, get_spec
from sglang.srt.speculative.base_spec_worker import BaseSpecWorker
from sglang.srt.speculative.dflash_info import DFlashVerifyInput
from sglang.srt.speculative.dflash_info_v2 import DFlashDraftInputV2
from sglang.srt.speculative.draft_parallel import model_draft_parallel_spec, resolve_draft_parallel_layout
from sglang.srt.speculative.draft_worker_common import build_draft_tp_worker
from sglang.srt.speculative.spec_info import SpeculativeAlgorithm
from sglang.srt.speculative.spec_tp_sync import SpecTpSync, SpecTpSyncSite
from sglang.srt.speculative.spec_utils import draft_pp_context, draft_tp_context

from sglang_dflash.host.contract import Touch

__all__ = [
    "BaseSpecWorker",
    "CaptureHiddenMode",
    "DFlashDraftInputV2",
    "DFlashVerifyInput",
    "ForwardBatch",
    "ForwardMode",
    "GenerationBatchResult",
    "LogitsProcessorOutput",
    "SpecTpSync",
    "SpecTpSyncSite",
    "SpeculativeAlgorithm",
    "build_draft_tp_worker",
    "draft_pp_context",
    "draft_tp_context",
    "enable_num_token_non_padded",
    "get_parallel",
    "get_schedule",
    "get_spec",
    "model_draft_parallel_spec",
    "resolve_draft_parallel_layout",
]


_WORKER = "a public interface for out-of-tree speculative workers"
TOUCHES = (
    Touch(
        "sglang.srt.speculative.base_spec_worker:BaseSpecWorker",
        "the scheduler type-checks the worker and calls its defaults",
        _WORKER,
    ),
    Touch(
        "sglang.srt.managers.utils:GenerationBatchResult",
        "what a round returns to the scheduler",
        _WORKER,
        (
            "logits_output",
            "next_token_ids",
            "accept_lens",
            "new_seq_lens",
            "next_draft_input",
            "speculative_num_draft_tokens",
            "speculative_output_stride",
            "can_run_cuda_graph",
            "kv_loc_plan",
        ),
    ),
    Touch(
        "sglang.srt.model_executor.forward_batch_info:ForwardBatch",
        "the draft's forward batch is built by hand",
        _WORKER,
        (
            "forward_mode",
            "batch_size",
            "input_ids",
            "req_pool_indices",
            "seq_lens",
            "out_cache_loc",
            "seq_lens_sum",
            "seq_lens_cpu",
            "positions",
            "spec_algorithm",
            "spec_info",
            "capture_hidden_mode",
            "global_num_token_non_padded_cpu",
            "can_run_decode_cuda_graph",
        ),
    ),
    Touch(
        "sglang.srt.speculative.dflash_info:DFlashVerifyInput",
        "verify input; attention backends and the scheduler key on its type",
        _WORKER,
        ("draft_token", "positions", "draft_token_num", "custom_mask", "capture_hidden_mode", "kv_loc_plan"),
    ),
    Touch(
        "sglang.srt.speculative.dflash_info:DFlashVerifyInput.prepare_for_verify",
        "builds the target's verify batch, under graphs or eager",
        _WORKER,
        ("batch", "target_worker", "defer_metadata_init"),
    ),
    Touch(
        "sglang.srt.speculative.dflash_info_v2:DFlashDraftInputV2",
        "state between rounds; disaggregation builds the parent type",
        _WORKER,
        ("topk_p", "topk_index", "bonus_tokens", "new_seq_lens", "hidden_states", "nxt_kv_lens_cpu"),
    ),
    Touch(
        "sglang.srt.speculative.draft_worker_common:build_draft_tp_worker",
        "loads the draft model in SGLang's own runner",
        _WORKER,
        ("server_args", "gpu_id", "nccl_port", "target_model_config", "algo_label"),
    ),
    Touch(
        "sglang.srt.speculative.draft_parallel:resolve_draft_parallel_layout",
        "tensor-parallel placement of the draft",
        _WORKER,
        ("collapse_cp",),
    ),
    Touch(
        "sglang.srt.speculative.draft_parallel:model_draft_parallel_spec",
        "what the placement is made of",
        _WORKER,
        ("model_config", "spec_algorithm"),
    ),
    Touch(
        "sglang.srt.model_executor.forward_batch_info:ForwardMode.TARGET_VERIFY",
        "the mode in which a draft pass and a verify pass attend to a block behind a prefix",
        _WORKER,
    ),
    Touch(
        "sglang.srt.model_executor.forward_batch_info:CaptureHiddenMode.FULL",
        "asks a target pass for the captured layers of every token",
        _WORKER,
    ),
    Touch(
        "sglang.srt.model_executor.forward_batch_info:enable_num_token_non_padded",
        "whether graphs are told how many of their tokens are real",
        _WORKER,
    ),
    Touch("sglang.srt.runtime_context:get_schedule", "the page size", "never: public"),
    *(
        Touch(f"sglang.srt.speculative.spec_tp_sync:SpecTpSyncSite.{name}", "names what ranks agree on", _WORKER)
        for name in ("DFLASH_TARGET", "DFLASH_ACCEPT_SAMPLE")
    ),
    Touch("sglang.srt.speculative.spec_utils:draft_tp_context", "scope of the draft's collectives", _WORKER),
    Touch("sglang.srt.speculative.spec_utils:draft_pp_context", "scope of the draft's construction", _WORKER),
    Touch(
        "sglang.srt.speculative.spec_tp_sync:SpecTpSync",
        "rank 0 decides sampled tokens for its tensor-parallel group",
        _WORKER,
    ),
    Touch(
        "sglang.srt.managers.tp_worker:TpModelWorker.forward_batch_generation",
        "target prefill and verify passes",
        _WORKER,
        (
            "batch",
            "forward_batch",
            "is_verify",
            "skip_attn_backend_init",
            "capture_hidden_mode",
            "return_kv_loc_plan",
        ),
    ),
    Touch(
        "sglang.srt.mem_cache.kv_index_translator:KVIndexTranslator.plan",
        "one plan of KV slots per round, shared by draft, verify and injection",
        _WORKER,
        ("req_pool_indices", "seq_lens", "seq_lens_cpu", "write_virtual", "read_extent"),
    ),
    Touch(
        "sglang.srt.mem_cache.kv_loc_plan:KVLocPlan.reads_from",
        "a windowed draft reads a row table of its own",
        _WORKER,
        ("source", "seq_lens", "seq_lens_cpu", "read_extent"),
    ),
)
