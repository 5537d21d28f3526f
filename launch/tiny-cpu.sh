#!/usr/bin/env bash
# The embedded pair, on any machine.
#   target    sglang_dflash/pair/weights/target
#   draft     sglang_dflash/pair/weights/draft, blocks of 16
#   hardware  any; where there is no accelerator, the CPU platform of this package takes over
#   measured  not yet measured (bench: sglang-dflash bench)
# Environment: MODEL DRAFT BLOCK_SIZE HOST PORT PYTHON, DRY_RUN=1 prints the command; arguments are passed on.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[[ -x $python ]] || python=python3

command=("$python" -m sglang.launch_server
  --model-path "${MODEL:-$root/sglang_dflash/pair/weights/target}"
  --speculative-algorithm DFLASH
  --speculative-draft-model-path "${DRAFT:-$root/sglang_dflash/pair/weights/draft}"
  --speculative-num-draft-tokens "${BLOCK_SIZE:-16}"
  --host "${HOST:-127.0.0.1}" --port "${PORT:-30000}" "$@")
if [[ -n ${DRY_RUN:-} ]]; then printf '%q ' "${command[@]}"; echo; else exec "${command[@]}"; fi
