#!/usr/bin/env bash
# Qwen3.5-122B-A10B with its published draft. Made from the catalogue: python -m sglang_dflash.checkpoints.catalogue
#   target     Qwen/Qwen3.5-122B-A10B (thinking on, as the draft was trained)
#   draft      z-lab/Qwen3.5-122B-A10B-DFlash, blocks of 16
#   hardware   4 GPUs with 128 GiB or more, or 8 with 80 (TP=8)
#   published  no figures
#   measured   not yet measured (bench: sglang-dflash bench)
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
  --model-path "${MODEL:-Qwen/Qwen3.5-122B-A10B}"
  --speculative-algorithm DFLASH
  --speculative-draft-model-path "${DRAFT:-z-lab/Qwen3.5-122B-A10B-DFlash}"
  --speculative-num-draft-tokens "${BLOCK_SIZE:-16}" --tp-size "${TP:-4}" --context-length "${CONTEXT:-65536}"
  --mem-fraction-static "${MEMORY:-0.75}" --attention-backend "${ATTENTION:-$target}"
  --speculative-draft-attention-backend "${DRAFT_ATTENTION:-$draft}" --page-size "${PAGE_SIZE:-$page}"
  --mamba-radix-cache-strategy extra_buffer --reasoning-parser qwen3 --tool-call-parser qwen3_coder
  --host "${HOST:-127.0.0.1}" --port "${PORT:-30000}" "$@")
if [[ -n ${DRY_RUN:-} ]]; then printf '%q ' "${command[@]}"; echo; else exec "${command[@]}"; fi
