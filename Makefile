# The project's commands; each sets up what it needs. `make` alone lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: help setup demo test lint bench bench-gpu
help:
	@echo "make demo    the whole method on drawn faces, in a few minutes"
	@echo "make test    the tests"
	@echo "make lint    ruff and mypy"
	@echo "make bench   the figures of benchmarks/README.md, measured on this machine, under its processor's kind"
	@echo "make bench-gpu  the same of a GPU; needs torch, torchvision, numpy and pandas alone"

setup: $(VENV)/ready
$(VENV)/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fer needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 …")'
	@echo "setting up $(VENV), once: two minutes or so, most of it torch"
	@$(PYTHON) -m venv $(VENV) || { echo "on Debian or Ubuntu: apt install python3-venv python3-dev g++"; exit 1; }
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]' 2>$(VENV)/pip.log \
		|| { tail -n 20 $(VENV)/pip.log; echo "pip failed; annoy is compiled, which on Debian or Ubuntu needs: apt install python3-dev g++"; exit 1; }
	@touch $@

demo: setup
	@$(BIN)/fer run demo

# One thread a process, since threads of several processes on the same cores wait for one another. First files of tests
# side by side; then tests with machines of their own; then those that have the container engine to themselves, one after
# the other, since they time it.
test: export OMP_NUM_THREADS = 1
# Else each of some hundreds of processes would compile the project anew, where the environment forbids to keep it.
test: export PYTHONDONTWRITEBYTECODE =
test: setup
	@$(BIN)/python -m pytest -m "not engine and not machines" -n auto --dist loadfile
	@$(BIN)/python -m pytest -m "machines and not engine" -n auto --dist worksteal
	@$(BIN)/python -m pytest -m engine

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

# Once more with ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 gives the column of a processor without AVX-512.
bench: export OMP_WAIT_POLICY = passive
bench: setup
	@for name in precision small_maps neighbours student inference graph memory overhead paper_table oversubscribed reading figures; do \
		$(BIN)/python benchmarks/$$name.py || exit 1; done
	@PYTHONPATH=tests $(BIN)/python benchmarks/machines.py
	@$(BIN)/python benchmarks/table.py

bench-gpu:
	@PYTHONPATH=. $(PYTHON) benchmarks/gpu.py
