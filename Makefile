# The project's commands; each sets up what it needs. `make` alone lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: help setup demo test lint bench
help:
	@echo "make demo    the whole method on drawn faces, in about five minutes"
	@echo "make test    the tests"
	@echo "make lint    ruff and mypy"
	@echo "make bench   figures of the README, measured on this machine"

setup: $(VENV)/ready
$(VENV)/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fer needs Python 3.11 or newer: set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@
