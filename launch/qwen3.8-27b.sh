#!/usr/bin/env bash
# Qwen3.8-27B with its published draft. Made from the catalogue: python -m sglang_dflash.checkpoints.catalogue
#   target     Qwen/Qwen3.8-27B (thinking on, as the draft was trained)
#   draft      z-lab/Qwen3.8-27B-DFlash2 (DFlash 2), blocks of 8
#   hardware   one GPU with 96 GiB or more; NVFP4 target on a 32 GiB card, with the cookbook's flags
#   published  accept length 4.3 to 4.8, 2.7x to 3.4x plain decoding at one request (one H200, SGLang: inco.ai, DFlash
#              2 article; one RTX 5090 or RTX PRO 6000, SGLang: SGLang's cookbook)
#   measured   not yet measured (bench: sglang-dflash bench)
#   note       one 32 GiB card: --mem-fraction-static 0.91 --chunked-prefill-size 1024 --mamba-ssm-dtype bfloat16
#              --kv-cache-dtype fp8_e4m3; the draft's cache stays in bfloat16
# Environment: MODEL DRAFT BLOCK_SIZE TP CONTEXT MEMORY ATTENTION DRAFT_ATTENTION PAGE_SIZE HOST PORT PYTHON, GPU
# (compute capability, such as 9.0), DRY_RUN=1 prints the command; arguments are passed on.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[[ -x $python ]] || python=python3

case ${GPU:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1)} in
  9.*)   target=fa3 draft=fa3 page=1 ;;
  10.*)  target=trtllm_mha draft=fa4 page=64 ;;
  *)     target=flashinfer draft=flashinfer page=1 ;;
esac

command=("$python" -m sglang.launch_server
  --model-path "${MODEL:-Qwen/Qwen3.8-27B}"
  --speculative-algorithm DFLASH
  --speculative-draft-model-path "${DRAFT:-z-lab/Qwen3.8-27B-DFlash2}"
  --speculative-num-draft-tokens "${BLOCK_SIZE:-8}" --tp-size "${TP:-1}" --context-length "${CONTEXT:-65536}"
  --mem-fraction-static "${MEMORY:-0.8}" --attention-backend "${ATTENTION:-$target}"
  --speculative-draft-attention-backend "${DRAFT_ATTENTION:-$draft}" --page-size "${PAGE_SIZE:-$page}"
  --mamba-radix-cache-strategy extra_buffer --reasoning-parser qwen3 --tool-call-parser qwen3_coder
  --host "${HOST:-127.0.0.1}" --port "${PORT:-30000}" "$@")
if [[ -n ${DRY_RUN:-} ]]; then printf '%q ' "${command[@]}"; echo; else exec "${command[@]}"; fi
