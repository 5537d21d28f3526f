#!/usr/bin/env bash
# Kimi-K2.7-Code with its published draft. Made from the catalogue: python -m sglang_dflash.checkpoints.catalogue
#   target     moonshotai/Kimi-K2.7-Code (thinking on, as the draft was trained)
#   draft      nvidia/Kimi-K2.7-Code-DFlash, blocks of 8
#   hardware   8x B300
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
  10.*)  target=cutedsl_mla draft=triton page=64 ;;
  *)     target=triton draft=triton page=1 ;;
esac

command=("$python" -m sglang.launch_server
  --model-path "${MODEL:-moonshotai/Kimi-K2.7-Code}"
  --speculative-algorithm DFLASH
  --speculative-draft-model-path "${DRAFT:-nvidia/Kimi-K2.7-Code-DFlash}"
  --speculative-num-draft-tokens "${BLOCK_SIZE:-8}" --tp-size "${TP:-8}" --context-length "${CONTEXT:-65536}"
  --mem-fraction-static "${MEMORY:-0.8}" --attention-backend "${ATTENTION:-$target}"
  --speculative-draft-attention-backend "${DRAFT_ATTENTION:-$draft}" --page-size "${PAGE_SIZE:-$page}"
  --reasoning-parser kimi_k2 --tool-call-parser kimi_k2 --trust-remote-code
  --host "${HOST:-127.0.0.1}" --port "${PORT:-30000}" "$@")
if [[ -n ${DRY_RUN:-} ]]; then printf '%q ' "${command[@]}"; echo; else exec "${command[@]}"; fi
