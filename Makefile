# make demo   sets everything up and runs the main job on the embedded data
# make test   sets everything up and runs the tests
#
# Needs Python 3.9 to 3.11 (PYTHON=... chooses one), make and a C library; nothing else.

PYTHON ?= $(shell for p in python3.11 python3.10 python3.9 python3 python; do \
  $$p -c 'import sys; sys.exit(not (3,9) <= sys.version_info[:2] <= (3,11))' 2>/dev/null \
  && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
# uv installs the same pinned files as pip, in seconds instead of minutes. Bytecode is compiled here,
# once: where Python may not write it, every start would compile TensorFlow again, for 15 s.
INSTALL := $(BIN)/uv pip install --quiet --compile-bytecode --no-deps --python $(BIN)/python
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.9 --no-header

# uv then trusts the certificates that the system trusts, as pip does. (The older, the newer name.)
export UV_NATIVE_TLS := true
export UV_SYSTEM_CERTS := true

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-long lint format lock docs api clean

help:
	@sed -n '1,4p' Makefile; echo "# make lint, format, test-slow, test-long, lock, docs, api, clean"

$(VENV)/.python:
	@test -n "$(PYTHON)" || { echo "error: Python 3.9, 3.10 or 3.11 is needed (TensorFlow Federated\
	 0.87 has no release for others); found $$(python3 --version 2>&1); set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3,9) <= sys.version_info[:2] <= (3,11))' || { \
	  echo "error: Python 3.9, 3.10 or 3.11 is needed, found $$($(PYTHON) --version 2>&1)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.5,<1"
	@touch $@

$(VENV)/.installed: $(VENV)/.python requirements.txt requirements-data.txt pyproject.toml
	$(INSTALL) -r requirements.txt -r requirements-data.txt
	$(INSTALL) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed requirements-dev.txt
	$(INSTALL) -r requirements-dev.txt
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/python scripts/train.py --config=configs/demo.py --run_dir=runs/demo --overwrite
	$(BIN)/python scripts/train.py --config=configs/demo.py --config.pruning.method=none \
	  --run_dir=runs/demo_dense --overwrite
	$(BIN)/python scripts/export.py --run_dir=runs/demo
	$(BIN)/python scripts/benchmark.py --run_dir=runs/demo
	$(BIN)/python scripts/report.py --run_dir=runs/demo --dense=runs/demo_dense

test: lint
	$(BIN)/python -m pytest -n 2 -m "not slow and not long"

test-slow: lint
	$(BIN)/python -m pytest -n 2 -m slow

test-long: lint
	$(BIN)/python -m pytest -n 2 -m long

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(VENV)/.python
	$(COMPILE) requirements.in --override requirements.overrides -o requirements.txt
	$(COMPILE) requirements-data.in -o requirements-data.txt
	$(COMPILE) requirements-dev.in -o requirements-dev.txt

docs: $(VENV)/.installed
	$(BIN)/python -c "import pathlib; from tff_autoprune import config; config.write_page(pathlib.Path('docs/configuration.md'))"

api: $(VENV)/.dev
	$(BIN)/pdoc --docformat google -o build/api tff_autoprune android_bench

clean:
	rm -rf $(VENV) build runs/demo runs/demo_dense
