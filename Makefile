# make demo           a classifier's life on 500 real pictures, in about a minute
# make test           the tests
# make test-train     those of the training loop and its methods, with PyTorch, some minutes
# make test-slow      all those of training, and whatever else takes long
# make test-browser   the page in Chromium (apt install chromium); make screenshots keeps what it sees
# make test-api       schemathesis on the API, from an environment of its own
#
# Each makes a virtual environment in .venv and installs what it needs, once, and again when
# pyproject.toml changes; PyTorch goes into one of its own, .venv/train, so that `make test` tests
# what works without it. Any Python from 3.11 on will do; choose one with make PYTHON=...

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
TRAIN := $(VENV)/train
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
DATA ?= $(or $(RETAIN_DATA),../shared)

# Of tests/train those that are quick: what needs whole networks, or a classifier, is for test-slow.
QUICK := augment known_mistakes loop method_laws method_twins methods named odd_lessons option_values plan \
	rare_lessons rehearsal resuming terms weights

.PHONY: demo test test-train test-slow test-browser screenshots test-api lint types imports bench docs clean

demo: $(VENV)/.demo
	$(BIN)/retain demo --out demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n 2 -m "not slow and not browser"

test-train: $(TRAIN)/.train
	$(TRAIN)/bin/python -m pytest -q -n 2 -m "not slow" $(QUICK:%=tests/train/test_%.py)

test-slow: $(TRAIN)/.train
	$(TRAIN)/bin/python -m pytest -q tests/train src/retain/train
	$(TRAIN)/bin/python -m pytest -q -m slow --ignore=tests/train

test-browser: $(VENV)/.browser
	$(BIN)/python -m pytest -q -m browser tests/browser

screenshots: $(VENV)/.browser
	RETAIN_SCREENSHOTS=docs/screenshots $(BIN)/python -m pytest -q -m browser tests/browser

test-api: $(VENV)/.dev $(VENV)/.api
	$(BIN)/python scripts/fuzz_api.py --schemathesis $(VENV)/api/bin/schemathesis

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

imports: $(VENV)/.dev
	$(BIN)/lint-imports

bench: $(VENV)/.dev
	@set -e; for script in benchmarks/[a-z]*.py; do \
		echo; echo "== $$script"; RETAIN_DATA="$(DATA)" $(BIN)/python $$script; done

docs: $(VENV)/.dev
	$(BIN)/python scripts/generate_cli_reference.py
	$(BIN)/python scripts/generate_benchmark_tables.py

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python $(TRAIN)/bin/python:
	@test -n "$(PYTHON)" || { echo "retain needs Python 3.11 or newer, and none was found; install one, or name it: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "retain needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1); name another: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "making $(@:/bin/python=) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(@:/bin/python=)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@echo "installing retain into $(VENV)"
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo "installing retain and its development tools into $(VENV)"
	@$(PIP) install --editable '.[dev]'
	@touch $@ $(VENV)/.demo

$(TRAIN)/.train: pyproject.toml | $(TRAIN)/bin/python
	@echo "installing retain, its development tools and PyTorch into $(TRAIN): gigabytes, once"
	@$(TRAIN)/bin/python -m pip --disable-pip-version-check -qq install --editable '.[dev,train,slow]'
	@touch $@

$(VENV)/.browser: pyproject.toml | $(VENV)/bin/python
	@echo "installing what drives the page; the browser itself is the system's: apt install chromium"
	@$(PIP) install --editable '.[dev,browser]'
	@touch $@ $(VENV)/.dev $(VENV)/.demo

$(VENV)/.api: pyproject.toml | $(VENV)/bin/python
	@echo "installing schemathesis into $(VENV)/api"
	@$(VENV)/bin/python -m venv $(VENV)/api
	@$(VENV)/api/bin/python -m pip --disable-pip-version-check -qq install 'schemathesis>=4'
	@touch $@
