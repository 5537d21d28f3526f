#!/usr/bin/env bash
# MiMo-V2.5-Pro with its published draft. Made from the catalogue: python -m sglang_dflash.checkpoints.catalogue
#   target     XiaomiMiMo/MiMo-V2.5-Pro (the mode that the draft was trained in is not published)
#   draft      XiaomiMiMo/MiMo-V2.5-Pro-FP4-DFlash (DFlash with sinks), blocks of 8
#   hardware   8 GPUs with 128 GiB or more
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
  10.*)  target=fa4 draft=fa4 page=128 ;;
  *)     target=triton draft=triton page=1 ;;
esac

command=("$python" -m sglang.launch_server
  --model-path "${MODEL:-XiaomiMiMo/MiMo-V2.5-Pro}"
  --speculative-algorithm DFLASH
  --speculative-draft-model-path "${DRAFT:-XiaomiMiMo/MiMo-V2.5-Pro-FP4-DFlash}"
  --speculative-num-draft-tokens "${BLOCK_SIZE:-8}" --tp-size "${TP:-8}" --context-length "${CONTEXT:-65536}"
  --mem-fraction-static "${MEMORY:-0.8}" --attention-backend "${ATTENTION:-$target}"
  --speculative-draft-attention-backend "${DRAFT_ATTENTION:-$draft}" --page-size "${PAGE_SIZE:-$page}"
  --reasoning-parser mimo --tool-call-parser mimo --trust-remote-code
  --host "${HOST:-127.0.0.1}" --port "${PORT:-30000}" "$@")
if [[ -n ${DRY_RUN:-} ]]; then printf '%q ' "${command[@]}"; echo; else exec "${command[@]}"; fi
