# Two commands: make demo, make test. Both set up what they need, once.
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
WORKERS ?= 2
export PYTHON
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test bench lint lock clean

help:
	@echo "make demo    serve the embedded pair: plain and DFLASH side by side, with a table of speeds"
	@echo "make test    run the tests, in WORKERS=2 processes"
	@echo "make bench   measure plain, built-in DFLASH and ours"
	@echo "make lint    check style and types"
	@echo "make setup   only set up .venv; make clean removes it and all results"
	@echo "ARGS=... is passed on, PYTHON=... chooses the interpreter"

setup:
	@bash requirements/setup.sh

demo: setup
	@$(BIN)/sglang-dflash demo $(ARGS)

test: setup
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder $(ARGS)

bench: setup
	@$(BIN)/sglang-dflash bench $(ARGS)

lint: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# Pins what the environment holds now.
lock:
	@{ echo "# Every package of the environment, pinned; made by: make lock"; \
	$(BIN)/python -m pip freeze --all --exclude pip --exclude-editable --exclude dflash; } > requirements/lock.txt

clean:
	rm -rf $(VENV) build dist bench-results *.egg-info
