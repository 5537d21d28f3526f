#!/usr/bin/env bash
# GLM-5.3-Flash with its published draft. Made from the catalogue: python -m sglang_dflash.checkpoints.catalogue
#   target     zai-org/GLM-5.3-Flash (the mode that the draft was trained in is not published)
#   draft      incoai/GLM-5.3-Flash-DFlash2 (DFlash 2), blocks of 8
#   hardware   Blackwell (SM100)
#   published  no figures
#   measured   not yet measured (bench: sglang-dflash bench)
# Environment: MODEL DRAFT BLOCK_SIZE TP CONTEXT MEMORY ATTENTION DRAFT_ATTENTION PAGE_SIZE HOST PORT PYTHON, GPU
# (compute capability, such as 9.0), DRY_RUN=1 prints the command; arguments are passed on.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[[ -x $python ]] || python=python3

case ${GPU:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1)} in
  9.*)   target= draft=fa3 page=1 ;;
  10.*)  target= draft=fa4 page=1 ;;
  *)     target= draft=triton page=1 ;;
esac

command=("$python" -m sglang.launch_server
  --model-path "${MODEL:-zai-org/GLM-5.3-Flash}"
  --speculative-algorithm DFLASH
  --speculative-draft-model-path "${DRAFT:-incoai/GLM-5.3-Flash-DFlash2}"
  --speculative-num-draft-tokens "${BLOCK_SIZE:-8}" --tp-size "${TP:-1}" --context-length "${CONTEXT:-65536}"
  --mem-fraction-static "${MEMORY:-0.8}" ${ATTENTION:+--attention-backend "$ATTENTION"}
  --speculative-draft-attention-backend "${DRAFT_ATTENTION:-$draft}" --page-size "${PAGE_SIZE:-$page}"
  --reasoning-parser glm45 --tool-call-parser glm47
  --host "${HOST:-127.0.0.1}" --port "${PORT:-30000}" "$@")
if [[ -n ${DRY_RUN:-} ]]; then printf '%q ' "${command[@]}"; echo; else exec "${command[@]}"; fi
