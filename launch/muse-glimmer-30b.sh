#!/usr/bin/env bash
# Muse-Glimmer-30B with its published draft. Made from the catalogue: python -m sglang_dflash.checkpoints.catalogue
#   target     meta-models/Muse-Glimmer-30B (thinking on, as the draft was trained)
#   draft      meta-models/Muse-Glimmer-30B-assistant (Muse), blocks of 16
#   hardware   one GPU with 96 GiB or more
#   published  accept length 4.4 (one H200, SGLang: inco.ai, DFlash 2 article)
#   measured   not yet measured (bench: sglang-dflash bench)
#   note       layer ids name outputs here, as in vLLM; SGLang's own worker captures the inputs of these layers: check
#              --run tells which fits
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
  --model-path "${MODEL:-meta-models/Muse-Glimmer-30B}"
  --speculative-algorithm DFLASH
  --speculative-draft-model-path "${DRAFT:-meta-models/Muse-Glimmer-30B-assistant}"
  --speculative-num-draft-tokens "${BLOCK_SIZE:-16}" --tp-size "${TP:-1}" --context-length "${CONTEXT:-65536}"
  --mem-fraction-static "${MEMORY:-0.85}" --attention-backend "${ATTENTION:-$target}"
  --speculative-draft-attention-backend "${DRAFT_ATTENTION:-$draft}" --page-size "${PAGE_SIZE:-$page}"
  --reasoning-parser muse --tool-call-parser muse
  --host "${HOST:-127.0.0.1}" --port "${PORT:-30000}" "$@")
if [[ -n ${DRY_RUN:-} ]]; then printf '%q ' "${command[@]}"; echo; else exec "${command[@]}"; fi
