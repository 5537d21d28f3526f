"""Launch commands published for DFlash checkpoints: flags as their owners spell them, and what they set."""

from typing import NamedTuple


class Published(NamedTuple):
    """One command: its environment, its flags, and fields of the parsed arguments."""

    environment: dict[str, str]
    flags: str
    fields: dict[str, object]


def dflash(target: str, draft: str, flags: str, **fields) -> Published:
    """A command with the flags that all have in common."""
    common = f"--model-path {target} --speculative-algorithm DFLASH --speculative-draft-model-path {draft}"
    expected = {
        "model_path": target,
        "speculative_algorithm": "DFLASH",
        "speculative_draft_model_path": draft,
    }
    return Published({}, f"{common} {flags}", expected | fields)


# Switched on, commented out, or switched off in the same commands.
SPEC_V2 = {
    "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN": "1",
    "SGLANG_ENABLE_SPEC_V2": "1",
    "SGLANG_ENABLE_DFLASH_SPEC_V2": "1",
    "SGLANG_ENABLE_OVERLAP_PLAN_STREAM": "1",
}

QWEN35_35B = dflash(
    "Qwen/Qwen3.5-35B-A3B",
    "z-lab/Qwen3.5-35B-A3B-DFlash",
    "--speculative-num-draft-tokens 16 --tp-size 1 --attention-backend trtllm_mha "
    "--speculative-draft-attention-backend fa4 --mem-fraction-static 0.75 "
    "--mamba-scheduler-strategy extra_buffer --trust-remote-code",
    speculative_num_draft_tokens=16,
    attention_backend="trtllm_mha",
    speculative_draft_attention_backend="fa4",
    mem_fraction_static=0.75,
    mamba_radix_cache_strategy="extra_buffer",
    trust_remote_code=True,
)
QWEN35_27B = dflash(
    "Qwen/Qwen3.5-27B",
    "z-lab/Qwen3.5-27B-DFlash",
    "--speculative-num-draft-tokens 16 --tp-size 1 --attention-backend fa3 --mem-fraction-static 0.75 "
    "--mamba-scheduler-strategy extra_buffer --trust-remote-code",
    attention_backend="fa3",
    mamba_radix_cache_strategy="extra_buffer",
)

COMMANDS = {
    "Qwen3.5-35B-A3B, README": QWEN35_35B,
    "Qwen3.5-35B-A3B, README, overlap": QWEN35_35B._replace(environment=SPEC_V2),
    "Qwen3.5-35B-A3B, article": dflash(
        "Qwen/Qwen3.5-35B-A3B",
        "z-lab/Qwen3.5-35B-A3B-DFlash",
        "--speculative-num-draft-tokens 16 --tp-size 1 --attention-backend trtllm_mha "
        "--speculative-draft-attention-backend fa4 --mem-fraction-static 0.75 --trust-remote-code",
        mamba_radix_cache_strategy="auto",
    ),
    "Qwen3.5-27B, model card": QWEN35_27B,
    "Qwen3.5-27B, model card, long context": QWEN35_27B._replace(
        flags=f"{QWEN35_27B.flags} --speculative-dflash-draft-window-size 4096",
        fields=QWEN35_27B.fields | {"speculative_draft_window_size": 4096},
    ),
    "gemma-4-31B-it, model card": dflash(
        "google/gemma-4-31B-it",
        "z-lab/gemma-4-31B-it-DFlash",
        "--speculative-num-draft-tokens 16 --tp-size 1 --attention-backend triton "
        "--speculative-draft-attention-backend fa4 --trust-remote-code",
        attention_backend="triton",
    ),
    "Qwen3-Coder-30B-A3B, first README": dflash(
        "Qwen/Qwen3-Coder-30B-A3B-Instruct",
        "z-lab/Qwen3-Coder-30B-A3B-DFlash",
        "--tp-size 1 --dtype bfloat16 --attention-backend fa3 --mem-fraction-static 0.75 --trust-remote-code",
        dtype="bfloat16",
    ),
    "Qwen3-8B, maintainers": dflash(
        "Qwen/Qwen3-8B",
        "z-lab/Qwen3-8B-DFlash-b16",
        "--speculative-num-draft-tokens 16 --tp-size 1 --attention-backend flashinfer --mem-fraction-static 0.75",
        attention_backend="flashinfer",
    ),
    "Qwen3-8B, fastest": dflash(
        "Qwen/Qwen3-8B",
        "z-lab/Qwen3-8B-DFlash-b16",
        "--speculative-num-draft-tokens 16 --attention-backend trtllm_mha --speculative-draft-attention-backend fa4",
        speculative_draft_attention_backend="fa4",
    ),
    "Qwen3.5-397B-A17B, blog": dflash(
        "Qwen/Qwen3.5-397B-A17B",
        "lmsys/Qwen3.5-397B-A17B-DFlash",
        "--speculative-dflash-block-size 8 --tp-size 8 --attention-backend trtllm_mha "
        "--speculative-draft-attention-backend fa4 --linear-attn-prefill-backend triton "
        "--linear-attn-decode-backend flashinfer --mamba-scheduler-strategy extra_buffer "
        "--max-running-requests 32 --cuda-graph-max-bs 32 --cuda-graph-backend-prefill tc_piecewise "
        "--enable-flashinfer-allreduce-fusion --mem-fraction-static 0.8",
        speculative_dflash_block_size=8,
        cuda_graph_max_bs_decode=32,
        cuda_graph_backend_prefill="breakable",
        linear_attn_decode_backend="flashinfer",
        tp_size=8,
    )._replace(environment={"SGLANG_ENABLE_OVERLAP_PLAN_STREAM": "1"}),
    "Qwen3.6-27B, user": dflash(
        "Qwen/Qwen3.6-27B",
        "z-lab/Qwen3.6-27B-DFlash",
        "--speculative-dflash-block-size 16 --page-size 1 --mem-fraction-static 0.82 "
        "--mamba-ssm-dtype bfloat16 --mamba-full-memory-ratio 2.0 --tp-size 2",
        page_size=1,
        mamba_full_memory_ratio=2.0,
    ),
    "Qwen3.6-35B-A3B, cookbook": dflash(
        "Qwen/Qwen3.6-35B-A3B",
        "z-lab/Qwen3.6-35B-A3B-DFlash",
        "--tp 1 --mem-fraction-static 0.8 --mamba-scheduler-strategy extra_buffer --reasoning-parser qwen3 "
        "--tool-call-parser qwen3_coder",
        reasoning_parser="qwen3",
        tool_call_parser="qwen3_coder",
    ),
    "Qwen3.8-27B, cookbook, one consumer card": dflash(
        "Qwen/Qwen3.8-27B",
        "z-lab/Qwen3.8-27B-DFlash2",
        "--speculative-num-draft-tokens 8 --attention-backend flashinfer --mem-fraction-static 0.91 "
        "--chunked-prefill-size 1024 --mamba-ssm-dtype bfloat16 --kv-cache-dtype fp8_e4m3 "
        "--mamba-radix-cache-strategy extra_buffer_lazy",
        mamba_radix_cache_strategy="extra_buffer_lazy",
    ),
    "Muse-Glimmer-30B, cookbook": dflash(
        "meta-models/Muse-Glimmer-30B",
        "meta-models/Muse-Glimmer-30B-assistant",
        "--mem-fraction-static 0.85 --reasoning-parser muse --tool-call-parser muse",
        reasoning_parser="muse",
    ),
    "MiniMax-M2.7, model card": dflash(
        "MiniMaxAI/MiniMax-M2.7",
        "nvidia/MiniMax-M2.7-DFlash",
        "--tp-size 4 --attention-backend trtllm_mha --speculative-draft-attention-backend fa4",
        tp_size=4,
    ),
    "Kimi-K2.7-Code, user": dflash(
        "moonshotai/Kimi-K2.7-Code",
        "nvidia/Kimi-K2.7-Code-DFlash",
        "--tp-size 4 --speculative-dflash-block-size 8 --speculative-draft-attention-backend triton "
        "--mem-fraction-static 0.8 --reasoning-parser kimi_k2 --tool-call-parser kimi_k2",
        speculative_draft_attention_backend="triton",
    ),
    "Kimi-K3, blog": dflash(
        "moonshotai/Kimi-K3",
        "modal-labs/Kimi-K3-DFlash",
        "--tp-size 8 --speculative-dflash-block-size 8 --speculative-dflash-draft-window-size 4096 "
        "--page-size 64 --attention-backend trtllm_mla --decode-attention-backend cutedsl_mla "
        "--speculative-draft-attention-backend trtllm_mha --speculative-draft-kv-cache-dtype bf16 "
        "--speculative-attention-mode decode --mamba-scheduler-strategy extra_buffer_lazy "
        "--linear-attn-prefill-backend triton --linear-attn-decode-backend flashinfer "
        "--linear-attn-verify-backend nv_cutedsl --kv-cache-dtype fp8_e4m3 "
        "--moe-runner-backend flashinfer_mxfp4 --mem-fraction-static 0.915 "
        "--cuda-graph-backend-prefill breakable",
        speculative_draft_window_size=4096,
        mamba_radix_cache_strategy="extra_buffer_lazy",
        speculative_draft_kv_cache_dtype="bf16",
    ),
    "GLM-5.3, cookbook": dflash(
        "zai-org/GLM-5.3",
        "incoai/GLM-5.3-DFlash2",
        "--tp-size 8 --quantization modelopt_fp4 --chunked-prefill-size 8192 "
        "--speculative-draft-attention-backend trtllm_mha --reasoning-parser glm45 --tool-call-parser glm47",
        quantization="modelopt_fp4",
    ),
    "GLM-5.3-Flash, cookbook": dflash(
        "zai-org/GLM-5.3-Flash",
        "incoai/GLM-5.3-Flash-DFlash2",
        "--speculative-draft-attention-backend fa4",
        speculative_num_draft_tokens=None,
    ),
    "Laguna-XS-2.1, cookbook": dflash(
        "poolside/Laguna-XS-2.1",
        "poolside/Laguna-XS-2.1-DFlash",
        "--tp-size 8 --attention-backend trtllm_mha --page-size 1 --mem-fraction-static 0.7 "
        "--reasoning-parser poolside_v1 --tool-call-parser poolside_v1",
        page_size=1,
    ),
    "Nemotron-3.5-Lightning, cookbook": dflash(
        "nvidia/NVIDIA-Nemotron-3.5-Lightning-30B-A3B-NVFP4",
        "nvidia/nemotron-3.5-dflash-w4a16-preview",
        "--speculative-dflash-block-size 6 --speculative-moe-runner-backend marlin",
        speculative_moe_runner_backend="marlin",
    ),
}
