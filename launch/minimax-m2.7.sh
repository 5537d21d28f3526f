#!/usr/bin/env bash
# MiniMax-M2.7 with its published draft. Made from the catalogue: python -m sglang_dflash.checkpoints.catalogue
#   target     MiniMaxAI/MiniMax-M2.7 (thinking on, as the draft was trained)
#   draft      nvidia/MiniMax-M2.7-DFlash, blocks of 8
#   hardware   4x B200
#   published  accept length 3.5 to 3.7 (4x B200, SGLang: copy of a model card)
#   measured   not yet measured (bench: sglang-dflash bench)
#   note       SGLang 0.5.23 cannot capture this class's hidden states by itself: the plug-in adds that
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
  --model-path "${MODEL:-MiniMaxAI/MiniMax-M2.7}"
  --speculative-algorithm DFLASH
  --speculative-draft-model-path "${DRAFT:-nvidia/MiniMax-M2.7-DFlash}"
  --speculative-num-draft-tokens "${BLOCK_SIZE:-8}" --tp-size "${TP:-4}" --context-length "${CONTEXT:-65536}"
  --mem-fraction-static "${MEMORY:-0.8}" --attention-backend "${ATTENTION:-$target}"
  --speculative-draft-attention-backend "${DRAFT_ATTENTION:-$draft}" --page-size "${PAGE_SIZE:-$page}"
  --reasoning-parser minimax-append-think --tool-call-parser minimax-m2
  --host "${HOST:-127.0.0.1}" --port "${PORT:-30000}" "$@")
if [[ -n ${DRY_RUN:-} ]]; then printf '%q ' "${command[@]}"; echo; else exec "${command[@]}"; fi
