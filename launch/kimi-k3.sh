#!/usr/bin/env bash
# Kimi-K3 with its published draft. Made from the catalogue: python -m sglang_dflash.checkpoints.catalogue
#   target     moonshotai/Kimi-K3 (thinking on, as the draft was trained)
#   draft      modal-labs/Kimi-K3-DFlash, blocks of 8
#   hardware   8x B300
#   published  no figures
#   measured   not yet measured (bench: sglang-dflash bench)
# Environment: MODEL DRAFT BLOCK_SIZE TP CONTEXT MEMORY ATTENTION DRAFT_ATTENTION PAGE_SIZE HOST PORT PYTHON, GPU
# (compute capability, such as 9.0), DRY_RUN=1 prints the command; arguments are passed on.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[[ -x $python ]] || python=python3

target=trtllm_mla draft=trtllm_mha page=64

command=("$python" -m sglang.launch_server
  --model-path "${MODEL:-moonshotai/Kimi-K3}"
  --speculative-algorithm DFLASH
  --speculative-draft-model-path "${DRAFT:-modal-labs/Kimi-K3-DFlash}"
  --speculative-num-draft-tokens "${BLOCK_SIZE:-8}" --tp-size "${TP:-8}" --context-length "${CONTEXT:-65536}"
  --mem-fraction-static "${MEMORY:-0.915}" --attention-backend "${ATTENTION:-$target}"
  --speculative-draft-attention-backend "${DRAFT_ATTENTION:-$draft}" --page-size "${PAGE_SIZE:-$page}"
  --mamba-radix-cache-strategy extra_buffer_lazy --reasoning-parser kimi_k3 --tool-call-parser kimi_k3
  --trust-remote-code --decode-attention-backend cutedsl_mla --speculative-draft-window-size 4096
  --speculative-draft-kv-cache-dtype bf16 --speculative-attention-mode decode --linear-attn-prefill-backend triton
  --linear-attn-decode-backend flashinfer --linear-attn-verify-backend nv_cutedsl --kv-cache-dtype fp8_e4m3
  --moe-runner-backend flashinfer_mxfp4 --cuda-graph-backend-prefill breakable
  --host "${HOST:-127.0.0.1}" --port "${PORT:-30000}" "$@")
if [[ -n ${DRY_RUN:-} ]]; then printf '%q ' "${command[@]}"; echo; else exec "${command[@]}"; fi
