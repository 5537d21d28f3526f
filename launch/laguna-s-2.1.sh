#!/usr/bin/env bash
# Laguna-S-2.1 with its published draft. Made from the catalogue: python -m sglang_dflash.checkpoints.catalogue
#   target     poolside/Laguna-S-2.1 (thinking on, as the draft was trained)
#   draft      poolside/Laguna-S-2.1-DFlash (Laguna), blocks of 8 (trained: 16)
#   hardware   8x H200 or 8x B200
#   published  accept length 4.0 to 6.4, 2.3x to 3.8x plain decoding at one request (not stated, not stated: model
#              cards of the quantised Laguna-S-2.1 drafts; range over tasks)
#   measured   not yet measured (bench: sglang-dflash bench)
#   note       the owners advise 7 proposed tokens, a block of 8; figures are of the quantised siblings
# Environment: MODEL DRAFT BLOCK_SIZE TP CONTEXT MEMORY ATTENTION DRAFT_ATTENTION PAGE_SIZE HOST PORT PYTHON, GPU
# (compute capability, such as 9.0), DRY_RUN=1 prints the command; arguments are passed on.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[[ -x $python ]] || python=python3

case ${GPU:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1)} in
  9.*)   target=fa3 draft=fa3 page=1 ;;
  10.*)  target=trtllm_mha draft=trtllm_mha page=64 ;;
  *)     target=triton draft=triton page=1 ;;
esac

command=("$python" -m sglang.launch_server
  --model-path "${MODEL:-poolside/Laguna-S-2.1}"
  --speculative-algorithm DFLASH
  --speculative-draft-model-path "${DRAFT:-poolside/Laguna-S-2.1-DFlash}"
  --speculative-num-draft-tokens "${BLOCK_SIZE:-8}" --tp-size "${TP:-8}" --context-length "${CONTEXT:-65536}"
  --mem-fraction-static "${MEMORY:-0.7}" --attention-backend "${ATTENTION:-$target}"
  --speculative-draft-attention-backend "${DRAFT_ATTENTION:-$draft}" --page-size "${PAGE_SIZE:-$page}"
  --reasoning-parser poolside_v1 --tool-call-parser poolside_v1
  --host "${HOST:-127.0.0.1}" --port "${PORT:-30000}" "$@")
if [[ -n ${DRY_RUN:-} ]]; then printf '%q ' "${command[@]}"; echo; else exec "${command[@]}"; fi
