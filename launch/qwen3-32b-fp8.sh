#!/usr/bin/env bash
# Qwen3-32B-FP8 with its published draft. Made from the catalogue: python -m sglang_dflash.checkpoints.catalogue
#   target     Qwen/Qwen3-32B-FP8 (the mode that the draft was trained in is not published)
#   draft      chutesai/Qwen3-32B-FP8-DFLASH, blocks as in its config
#   hardware   one GPU with 80 GiB or more
#   published  no figures
#   measured   not yet measured (bench: sglang-dflash bench)
#   note       a community draft: its config was not available when this was written
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
  --model-path "${MODEL:-Qwen/Qwen3-32B-FP8}"
  --speculative-algorithm DFLASH
  --speculative-draft-model-path "${DRAFT:-chutesai/Qwen3-32B-FP8-DFLASH}"
  ${BLOCK_SIZE:+--speculative-num-draft-tokens "$BLOCK_SIZE"} --tp-size "${TP:-1}"
  --context-length "${CONTEXT:-40960}" --mem-fraction-static "${MEMORY:-0.75}"
  --attention-backend "${ATTENTION:-$target}" --speculative-draft-attention-backend "${DRAFT_ATTENTION:-$draft}"
  --page-size "${PAGE_SIZE:-$page}"
  --host "${HOST:-127.0.0.1}" --port "${PORT:-30000}" "$@")
if [[ -n ${DRY_RUN:-} ]]; then printf '%q ' "${command[@]}"; echo; else exec "${command[@]}"; fi
