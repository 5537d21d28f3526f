#!/usr/bin/env bash
# gemma-4-31B-it with its published draft. Made from the catalogue: python -m sglang_dflash.checkpoints.catalogue
#   target     google/gemma-4-31B-it (thinking on, as the draft was trained)
#   draft      z-lab/gemma-4-31B-it-DFlash, blocks of 16
#   hardware   one GPU with 128 GiB or more, or two with 80 (TP=2)
#   published  accept length 4.2 to 8.6, 3.0x to 5.8x plain decoding at one request (one B300, vLLM: model card of
#              z-lab/gemma-4-31B-it-DFlash)
#   measured   not yet measured (bench: sglang-dflash bench)
# Environment: MODEL DRAFT BLOCK_SIZE TP CONTEXT MEMORY ATTENTION DRAFT_ATTENTION PAGE_SIZE HOST PORT PYTHON, GPU
# (compute capability, such as 9.0), DRY_RUN=1 prints the command; arguments are passed on.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[[ -x $python ]] || python=python3

case ${GPU:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1)} in
  10.*)  target=triton draft=fa4 page=1 ;;
  *)     target=triton draft=triton page=1 ;;
esac

command=("$python" -m sglang.launch_server
  --model-path "${MODEL:-google/gemma-4-31B-it}"
  --speculative-algorithm DFLASH
  --speculative-draft-model-path "${DRAFT:-z-lab/gemma-4-31B-it-DFlash}"
  --speculative-num-draft-tokens "${BLOCK_SIZE:-16}" --tp-size "${TP:-1}" --context-length "${CONTEXT:-65536}"
  --mem-fraction-static "${MEMORY:-0.85}" --attention-backend "${ATTENTION:-$target}"
  --speculative-draft-attention-backend "${DRAFT_ATTENTION:-$draft}" --page-size "${PAGE_SIZE:-$page}"
  --reasoning-parser gemma4 --tool-call-parser gemma4
  --host "${HOST:-127.0.0.1}" --port "${PORT:-30000}" "$@")
if [[ -n ${DRY_RUN:-} ]]; then printf '%q ' "${command[@]}"; echo; else exec "${command[@]}"; fi
