#!/usr/bin/env bash
# Makes .venv from requirements/lock.txt and installs this package in it; does nothing where that is already done.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PYTHONDONTWRITEBYTECODE # without byte code every server process would compile SGLang again
venv=.venv stamp=.venv/.dflash-setup

fail() { echo "error: $*" >&2; exit 2; }
usable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

command -v git >/dev/null || fail "git: not found (install git)"
if [[ -x $venv/bin/python ]]; then
  python=$venv/bin/python
  usable "$python" || fail "$venv: its python does not run or is older than 3.11 (remove $venv and run again)"
else
  for python in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do usable "$python" && break; python=; done
  [[ -n $python ]] || fail "python: ${PYTHON:-python3} is missing or older than 3.11 (install Python >= 3.11, or make PYTHON=<path>)"
  "$python" -c 'import ensurepip, venv' 2>/dev/null || fail "python: $python lacks the venv module (install it, for example apt install python3-venv)"
fi

# The folder belongs to the state: an editable install knows where it lies.
state=$("$python" - "$PWD" pyproject.toml requirements/*.txt <<'EOF'
import hashlib, pathlib, sys
parts = [sys.argv[1].encode(), *(pathlib.Path(name).read_bytes() for name in sys.argv[2:])]
print(hashlib.sha256(b"\0".join(parts)).hexdigest())
EOF
)
if [[ -f $stamp && $(<"$stamp") == "$state" ]]; then exit 0; fi

if [[ ! -x $venv/bin/python ]]; then
  free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
  ((free >= 15)) || fail "disk: $free GB free here, the environment needs 15 (make room)"
  echo "Making $venv ($("$python" --version))"
  "$python" -m venv "$venv"
fi
pip=("$venv/bin/python" -m pip --disable-pip-version-check --no-input install)
echo "Installing the pinned packages: several gigabytes, once"
# The lists are complete, so nothing is left to resolve.
"${pip[@]}" --no-deps -r requirements/lock.txt | grep --line-buffered -v "already satisfied" || true
"$venv/bin/python" -c 'import sglang, torch, typer' || fail "pip: the packages did not install (see above, then run again)"
# Its own pins lie beside ours and are not needed.
"${pip[@]}" -q --no-deps -r requirements/oracle.txt
"${pip[@]}" -q --no-deps --no-build-isolation -e . >"$venv/install.log" 2>&1 || { cat "$venv/install.log" >&2; fail "pip: this package did not install"; }
echo "Compiling"
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$venv/bin/python" -m compileall -q -j 0 "$site/sglang" "$site/transformers" || true
echo "$state" >"$stamp"
echo "Set up in $venv"
