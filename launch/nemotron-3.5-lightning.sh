#!/usr/bin/env bash
# Nemotron-3.5-Lightning-30B-A3B with its published draft. Made from the catalogue: python -m sglang_dflash.checkpoints.catalogue
#   target     nvidia/NVIDIA-Nemotron-3.5-Lightning-30B-A3B-NVFP4 (the mode that the draft was trained in is not
#              published)
#   draft      nvidia/nemotron-3.5-dflash-w4a16-preview (DFlash, 4-bit weights), blocks of 6
#   hardware   one Hopper GPU, or a DGX Spark
#   published  no figures
#   measured   not yet measured (bench: sglang-dflash bench)
# Environment: MODEL DRAFT BLOCK_SIZE TP CONTEXT MEMORY ATTENTION DRAFT_ATTENTION PAGE_SIZE HOST PORT PYTHON, GPU
# (compute capability, such as 9.0), DRY_RUN=1 prints the command; arguments are passed on.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[[ -x $python ]] || python=python3

target= draft=flashinfer page=1

command=("$python" -m sglang.launch_server
  --model-path "${MODEL:-nvidia/NVIDIA-Nemotron-3.5-Lightning-30B-A3B-NVFP4}"
  --speculative-algorithm DFLASH
  --speculative-draft-model-path "${DRAFT:-nvidia/nemotron-3.5-dflash-w4a16-preview}"
  --speculative-num-draft-tokens "${BLOCK_SIZE:-6}" --tp-size "${TP:-1}" --context-length "${CONTEXT:-65536}"
  --mem-fraction-static "${MEMORY:-0.8}" ${ATTENTION:+--attention-backend "$ATTENTION"}
  --speculative-draft-attention-backend "${DRAFT_ATTENTION:-$draft}" --page-size "${PAGE_SIZE:-$page}"
  --reasoning-parser nemotron_3 --speculative-moe-runner-backend marlin
  --host "${HOST:-127.0.0.1}" --port "${PORT:-30000}" "$@")
if [[ -n ${DRY_RUN:-} ]]; then printf '%q ' "${command[@]}"; echo; else exec "${command[@]}"; fi
