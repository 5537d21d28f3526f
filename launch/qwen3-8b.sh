#!/usr/bin/env bash
# Qwen3-8B with its published draft, on one GPU.
#   target    Qwen/Qwen3-8B (non-thinking: the draft was trained without)
#   draft     z-lab/Qwen3-8B-DFlash-b16, blocks of 16
#   hardware  one GPU with 24 GiB or more
#   measured  not yet measured (bench: sglang-dflash bench)
# Environment: MODEL DRAFT BLOCK_SIZE ATTENTION HOST PORT PYTHON, DRY_RUN=1 prints the command; arguments are
# passed on.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[[ -x $python ]] || python=python3

command=("$python" -m sglang.launch_server
  --model-path "${MODEL:-Qwen/Qwen3-8B}"
  --speculative-algorithm DFLASH
  --speculative-draft-model-path "${DRAFT:-z-lab/Qwen3-8B-DFlash-b16}"
  --speculative-num-draft-tokens "${BLOCK_SIZE:-16}"
  --attention-backend "${ATTENTION:-flashinfer}" --dtype bfloat16 --mem-fraction-static 0.75
  --host "${HOST:-127.0.0.1}" --port "${PORT:-30000}" "$@")
if [[ -n ${DRY_RUN:-} ]]; then printf '%q ' "${command[@]}"; echo; else exec "${command[@]}"; fi
