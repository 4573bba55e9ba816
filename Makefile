# Everything runs in .venv, made on first use and renewed when its requirements change.
#   make PYTHON=python3.13 test    with another Python
#   make CONSTRAINTS= test         with the newest versions instead of the measured ones

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt

VENV := .venv
BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))

# The teacher is trained once; a comparison goes on where it stopped.
DEMO_TEACHER := digits-teacher
DEMO := digits-demo

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help demo test test-all lint format tables clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo      install, train a teacher and distill it on digits, print the table'
	@echo 'make test      lint, types, imports, spelling, and the tests that are quick'
	@echo 'make test-all  the same with the slow tests'
	@echo 'make lint      all checks without the tests'
	@echo 'make format    let ruff rewrite what it can'
	@echo 'make tables    write the measured tables of the README anew, from the records'
	@echo 'make clean     remove .venv and caches; runs/ stays'

demo: $(VENV)/installed
	@test -e runs/$(DEMO_TEACHER)/record.json || $(BIN)/tutelage train $(DEMO_TEACHER) \
		--name $(DEMO_TEACHER) $$(test ! -e runs/$(DEMO_TEACHER) || echo --resume)
	@$(BIN)/tutelage compare $(DEMO)

test: lint
	$(BIN)/pytest -m 'not slow'

test-all: lint
	$(BIN)/pytest

lint: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

tables: $(VENV)/installed
	$(BIN)/python benchmarks/tables.py

clean:
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# One call for torch and torchvision: their versions belong together.
$(VENV)/installed: pyproject.toml $(CONSTRAINTS) | $(BIN)/pip
	@echo 'Installing tutelage and PyTorch into $(VENV): some minutes, and with CUDA about 6 GB ...'
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/installed-dev: pyproject.toml $(CONSTRAINTS) | $(BIN)/pip
	@echo 'Installing tutelage, PyTorch and the tools for tests into $(VENV): some minutes, and with CUDA about 6 GB ...'
	@$(INSTALL) --editable '.[dev]'
	@touch $(VENV)/installed $@

# Debian packages ensurepip apart from Python. pip is the last thing that venv makes, so an
# interrupted venv is made again.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  found=$$($(PYTHON) --version 2>/dev/null) || found=missing; \
	  echo "tutelage needs Python 3.11 or newer, but $(PYTHON) is $$found: install one, or name another as in 'make PYTHON=python3.13 demo'." >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make a virtual environment: as root, run 'apt install python3-venv', then make again." >&2; \
	  exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
