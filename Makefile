# Works on a bare machine with Python 3.11 to 3.13, git and make: the first target that needs it builds `.venv` from
# pinned, hashed packages and installs the project into it, editable. `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Else every process that a target or a test starts compiles all it imports again: 6 s instead of 2 for each service.
unexport PYTHONDONTWRITEBYTECODE

# The interpreter that `.venv` is made of, for example `make PYTHON=python3.12 test`.
PYTHON ?= python3
# More arguments for pytest or a benchmark, for example `make test-unit ARGS="-k alias -x"`.
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
FRAMEWORKS := .venv-frameworks
UV := VIRTUAL_ENV=$(CURDIR)/$(VENV) UV_PYTHON_DOWNLOADS=never $(BIN)/uv
REPORTS := .work/reports
COMPILE_LOCK := uv pip compile pyproject.toml --extra suite --extra xgboost --extra lightgbm --extra mlflow --extra environments --extra parquet -c requirements/uv.txt --group dev --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate -o requirements/lock.txt

COMPILE_FRAMEWORKS := uv pip compile pyproject.toml --extra torch --extra transformers -c requirements/lock.txt --universal \
	--python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate -o requirements/frameworks.txt

TESTS := test-unit test-contract test-property test-conformance test-behaviour test-faults test-install
VERIFIES := verify-types verify-protos verify-lint verify-imports verify-floors verify-lock verify-deploy
FIXES := $(VERIFIES:verify-%=fix-%)
BENCHES := $(patsubst tests/bench/bench_%.py,bench-%,$(sort $(wildcard tests/bench/bench_*.py)))

.PHONY: help
help: ## Show this list.
	@awk 'BEGIN {FS = ":.*## "} /^[a-z%-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- Installation --------------------------------------------------------------------------------------------------------

.PHONY: install
install: $(READY) ## Build .venv and install the project into it (every other target does this first).

$(READY): requirements/lock.txt requirements/uv.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "no '$(PYTHON)' here: install Python 3.11 or later, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Modelyard needs Python 3.11 or later, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1): name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt; }
	@echo "installing pinned packages into $(VENV)"
	@$(UV) pip sync --quiet --require-hashes requirements/lock.txt requirements/uv.txt
	@$(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# --- Running -------------------------------------------------------------------------------------------------------------

.PHONY: demo up
demo: $(READY) ## Take a trained model through the whole product, in under a minute, and stop.
	$(BIN)/modelyard demo $(ARGS)
up: $(READY) ## Start the whole suite on this machine and stay (Ctrl-C stops it).
	$(BIN)/modelyard up $(ARGS)

# --- Tests ---------------------------------------------------------------------------------------------------------------

# Three processes, because half of the time is waiting. Each keeps what a file of tests starts; the order of the files is in
# tests/conftest.py.
PYTEST = $(BIN)/pytest --no-header --junitxml=$(REPORTS)/$(@:test-%=%).xml $(ARGS)
PARALLEL := -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: test test-frameworks $(TESTS)
test: $(READY) ## Run every kind of test: at once, so that each process imports everything once, and none waits at the end of each kind.
	$(PYTEST) $(PARALLEL) $(TESTS:test-%=tests/%)
test-unit: $(READY) ## Rules, messages, rendering: no I/O.
	$(PYTEST) $(PARALLEL) tests/unit
test-contract: $(READY) ## Every RPC and reason is served, permitted, documented and in the client; protos, floors, deploy.
	$(PYTEST) $(PARALLEL) tests/contract
test-property: $(READY) ## Random sequences against a model (hypothesis).
	$(PYTEST) $(PARALLEL) tests/property
test-conformance: $(READY) ## Stores and runtimes against their suites, on real PostgreSQL and disks.
	$(PYTEST) $(PARALLEL) tests/conformance
test-behaviour: $(READY) ## Users' stories through the public client, on real processes and real Envoy.
	$(PYTEST) $(PARALLEL) tests/behaviour
test-faults: $(READY) ## Kill, cut and fail at the durable steps, then check what must hold.
	$(PYTEST) $(PARALLEL) tests/faults
test-frameworks: $(FRAMEWORKS)/.ready ## PyTorch and transformers, in an environment of their own of 6 GB; no part of `test`.
	$(FRAMEWORKS)/bin/pytest --no-header $(ARGS) tests/frameworks
$(FRAMEWORKS)/.ready: $(READY) requirements/frameworks.txt
	@test -x $(FRAMEWORKS)/bin/python || $(PYTHON) -m venv $(FRAMEWORKS)
	@echo "installing pinned packages into $(FRAMEWORKS)"
	@VIRTUAL_ENV=$(CURDIR)/$(FRAMEWORKS) $(BIN)/uv pip sync --quiet --require-hashes requirements/lock.txt requirements/uv.txt requirements/frameworks.txt
	@VIRTUAL_ENV=$(CURDIR)/$(FRAMEWORKS) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
test-install: $(READY) ## The wheel in clean environments.
	$(PYTEST) tests/install

# --- Gates: each verify-x changes nothing, and fix-x repairs what it finds or says how --------------------------------

.PHONY: verify fix $(VERIFIES) $(FIXES)
verify: $(VERIFIES) ## Run every gate; with `make -j2 -O verify` beside each other.
fix: fix-protos fix-lint fix-lock ## Repair what can be repaired automatically.

verify-protos: $(READY) ## buf lint, format, breaking against main; committed stubs are fresh.
	$(BIN)/pytest -q --no-header tests/contract/test_protos.py
fix-protos: $(READY) ## Format the contracts and generate the stubs.
	$(BIN)/buf format -w protos
	$(UV) run --quiet --no-project --python $(BIN)/python --script protos/generate.py

verify-lint: $(READY) ## ruff: rules and format.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
fix-lint: $(READY) ## Apply ruff's safe fixes and its format.
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

verify-types: $(READY) ## mypy, strict.
	$(BIN)/mypy
fix-types: ## Says what to do about a finding of mypy.
	@echo "mypy's findings need a person: make the type true, or say at the line, with its code, why it cannot be told"

verify-imports: $(READY) ## import-linter: who may import whom (.importlinter).
	$(BIN)/lint-imports
fix-imports: ## Says what to do about a broken import contract.
	@echo "move the code to the layer it belongs to (ARCHITECTURE.md); services meet only through modelyard_kit.peers"

verify-floors: $(READY) ## Lowest grpcio and protobuf in pyproject.toml are those of the committed stubs.
	$(BIN)/pytest -q --no-header tests/contract/test_floors.py
fix-floors: ## Says what to do when the floors differ.
	@echo "write the versions that 'make verify-floors' names into [project.dependencies] of pyproject.toml, then make fix-lock"

verify-lock: $(READY) ## requirements/lock.txt satisfies pyproject.toml, nothing more, hashed, without registry addresses.
	$(BIN)/pytest -q --no-header tests/contract/test_lock.py
	$(UV) pip check --quiet
fix-lock: $(READY) ## Compile requirements/lock.txt again, keeping every version that still fits.
	VIRTUAL_ENV=$(CURDIR)/$(VENV) PATH="$(CURDIR)/$(BIN):$$PATH" $(COMPILE_LOCK) --quiet
	VIRTUAL_ENV=$(CURDIR)/$(VENV) PATH="$(CURDIR)/$(BIN):$$PATH" $(COMPILE_FRAMEWORKS) --quiet

verify-deploy: $(READY) ## Dockerfile and compose file: linted, schema-checked, and they name things that exist.
	$(BIN)/pytest -q --no-header tests/contract/test_deploy.py
fix-deploy: ## Says what to do about a finding in deploy/.
	@echo "deploy/ is edited by hand: the finding names the file and line; docs/deploy.md says what each part is for"

# --- Measurements --------------------------------------------------------------------------------------------------------

.PHONY: bench $(BENCHES)
bench: $(BENCHES) ## Run every benchmark, or one: bench-catalog, bench-predict (results: tests/bench/README.md).
$(BENCHES): bench-%: $(READY)
	$(BIN)/python -m tests.bench.bench_$* $(ARGS)

# --- Cleaning ------------------------------------------------------------------------------------------------------------

.PHONY: clean distclean
clean: ## Remove caches, reports and built packages.
	rm -rf .work .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -not -path './$(VENV)*' -prune -exec rm -rf {} +
distclean: clean ## Also remove .venv and .venv-frameworks.
	rm -rf $(VENV) $(FRAMEWORKS)
