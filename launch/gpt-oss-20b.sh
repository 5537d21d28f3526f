#!/usr/bin/env bash
# gpt-oss-20b with its published draft. Made from the catalogue: python -m sglang_dflash.checkpoints.catalogue
#   target     openai/gpt-oss-20b (thinking on, as the draft was trained)
#   draft      z-lab/gpt-oss-20b-DFlash, blocks of 8
#   hardware   one GPU with 24 GiB or more
#   published  2.0x plain decoding at one request (not stated, SGLang: maintainer in zlab#29)
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
  *)     target=triton draft=triton page=1 ;;
esac

command=("$python" -m sglang.launch_server
  --model-path "${MODEL:-openai/gpt-oss-20b}"
  --speculative-algorithm DFLASH
  --speculative-draft-model-path "${DRAFT:-z-lab/gpt-oss-20b-DFlash}"
  --speculative-num-draft-tokens "${BLOCK_SIZE:-8}" --tp-size "${TP:-1}" --context-length "${CONTEXT:-65536}"
  --mem-fraction-static "${MEMORY:-0.8}" --attention-backend "${ATTENTION:-$target}"
  --speculative-draft-attention-backend "${DRAFT_ATTENTION:-$draft}" --page-size "${PAGE_SIZE:-$page}"
  --reasoning-parser gpt-oss --tool-call-parser gpt-oss
  --host "${HOST:-127.0.0.1}" --port "${PORT:-30000}" "$@")
if [[ -n ${DRY_RUN:-} ]]; then printf '%q ' "${command[@]}"; echo; else exec "${command[@]}"; fi
