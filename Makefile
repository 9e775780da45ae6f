# Everything needs Python >= 3.11 and make; the rest is installed into .venv.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
BIN := .venv/bin
TEST_WORKERS ?= 2

.PHONY: help install run gateway test test-fast faults faults-long lint types bench docs wheel clean
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-11s %s\n", $$1, $$2}'

install: .venv/installed ## Make .venv and install ducto with everything that development needs

.venv/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "ducto needs Python 3.11 or newer; none was found. Name one: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "This Python cannot make virtual environments. On Debian: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

run: install ## Run the demo: a metered gateway, driven by the real SDKs; fails if the books do not agree
	$(BIN)/ducto demo

gateway: install ## Serve the gateway of the demo until it is stopped
	$(BIN)/ducto gateway

test: install ## Run all tests, in TEST_WORKERS processes, each with servers of its own
	$(BIN)/pytest -n $(TEST_WORKERS) --dist loadfile

test-fast: install ## Run the tests without the long model, end-to-end and fault runs
	$(BIN)/pytest -n $(TEST_WORKERS) --dist loadfile --ignore=tests/model --ignore=tests/end_to_end --ignore=tests/faults

faults: install ## Kill servers and gateways under load for a minute; fails if a charge is lost or doubled
	$(BIN)/python -m tests.faults --seconds 60

faults-long: install ## The same for half an hour
	$(BIN)/python -m tests.faults --seconds 1800

lint: install ## Check style, formatting and the layers of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install ## Check types
	$(BIN)/mypy

bench: install ## Measure, each figure beside its limit or peer
	$(BIN)/python -m benchmarks

docs: install ## Build the site of the documentation into site/; a warning is an error
	$(BIN)/mkdocs build --strict

# The times in the archives are those of the commit, so that everybody who builds it gets the same bytes.
wheel: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 1577836800)
wheel: install ## Build wheel and source distribution into dist/, the wheel from the source distribution
	rm -rf dist
	$(BIN)/python -m build --outdir dist .

clean: ## Remove what the other targets made
	rm -rf .venv dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
