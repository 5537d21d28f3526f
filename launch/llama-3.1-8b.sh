#!/usr/bin/env bash
# Llama-3.1-8B-Instruct with its published draft. Made from the catalogue: python -m sglang_dflash.checkpoints.catalogue
#   target     meta-llama/Llama-3.1-8B-Instruct (thinking off: the draft was trained without)
#   draft      z-lab/LLaMA3.1-8B-Instruct-DFlash-UltraChat, blocks of 10
#   hardware   one GPU with 32 GiB or more
#   published  no figures
#   measured   not yet measured (bench: sglang-dflash bench)
#   long text  add --speculative-draft-window-size 4096
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
  --model-path "${MODEL:-meta-llama/Llama-3.1-8B-Instruct}"
  --speculative-algorithm DFLASH
  --speculative-draft-model-path "${DRAFT:-z-lab/LLaMA3.1-8B-Instruct-DFlash-UltraChat}"
  --speculative-num-draft-tokens "${BLOCK_SIZE:-10}" --tp-size "${TP:-1}" --context-length "${CONTEXT:-32768}"
  --mem-fraction-static "${MEMORY:-0.75}" --attention-backend "${ATTENTION:-$target}"
  --speculative-draft-attention-backend "${DRAFT_ATTENTION:-$draft}" --page-size "${PAGE_SIZE:-$page}"
  --tool-call-parser llama3 --dtype bfloat16
  --host "${HOST:-127.0.0.1}" --port "${PORT:-30000}" "$@")
if [[ -n ${DRY_RUN:-} ]]; then printf '%q ' "${command[@]}"; echo; else exec "${command[@]}"; fi
