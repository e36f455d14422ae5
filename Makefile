# The project's commands: `make` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# Where Molecule deploys to; empty: each of ubuntu2204, debian12 and debian13 that can be had here.
PLATFORMS ?=
# Which of the folders under molecule/ run there; empty: as tests/molecule.sh says.
SCENARIOS ?=
# Arguments for pytest, for instance PYTEST='-k htpasswd'.
PYTEST ?=
# BENCH=quick: five minutes instead of twenty, on hosts that stay, into tests/output; its figures say little.
BENCH ?=
OUTPUT := tests/output
# The oldest MLflow that the collection deploys.
OLDEST := $(shell ls roles/mlflow_venv/files | sed -n 's/^requirements-\(.*\)\.txt$$/\1/p' | sort -V | head -n 1)

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

.PHONY: setup
setup: ## Prepare this machine: apt packages (podman, ...), and the locked tools in .venv
	@tests/setup.sh

.PHONY: test
test: setup ## Everything below that tests: lint, sanity, unit, contract, molecule; each runs, whatever the others found
	@failed=(); mkdir -p $(OUTPUT); \
	for part in lint sanity unit; do \
	  echo "test: $$part"; \
	  $(MAKE) --no-print-directory $$part || failed+=("$$part"); \
	done; \
	echo 'test: contract, which waits more than it works, beside molecule'; \
	{ $(MAKE) --no-print-directory contract >$(OUTPUT)/contract-part.log 2>&1 && status=0 || status=1; cat $(OUTPUT)/contract-part.log; exit $$status; } & \
	contract=$$!; trap 'kill $$contract 2>/dev/null || true' EXIT; \
	$(MAKE) --no-print-directory molecule || failed+=(molecule); \
	wait $$contract || failed+=(contract); \
	if [ $${#failed[@]} -gt 0 ]; then echo "test: FAILED: $${failed[*]}"; exit 1; fi; \
	echo 'test: all passed'

.PHONY: test-all
test-all: ## The same with the drills: scenarios that take long
	@ALL=1 $(MAKE) --no-print-directory test

.PHONY: lint
lint: setup ## Check style, syntax and documentation of playbooks, roles and modules
	@tests/lint.sh

.PHONY: sanity
sanity: setup ## Run ansible-test sanity, with no ignore entries
	@tests/sanity.sh

.PHONY: unit
unit: setup ## Test the modules and templates on this machine (PYTEST='-k name' narrows it)
	@tests/unit.sh $(PYTEST)

.PHONY: contract
contract: setup ## Hold launcher and site against MLflow's own command, of the newest release and of the oldest
	@tests/setup.sh mlflow
	@tests/setup.sh mlflow $(OLDEST)
	@mkdir -p $(OUTPUT)
	@echo 'contract: pytest tests/contract'
	@MLFLOW_TEST_PYTHON=$(CURDIR)/.cache/mlflow/bin/python pytest tests/contract $(PYTEST) 2>&1 | tee $(OUTPUT)/contract.log
	@echo 'contract: pytest tests/contract, MLflow $(OLDEST)'
	@MLFLOW_TEST_PYTHON=$(CURDIR)/.cache/mlflow-$(OLDEST)/bin/python pytest tests/contract --ignore=tests/contract/test_auth.py --ignore=tests/contract/test_database.py $(PYTEST) 2>&1 | tee $(OUTPUT)/contract-$(OLDEST).log

.PHONY: molecule
molecule: setup ## Deploy to booted hosts and verify there (PLATFORMS='ubuntu2204 debian12', SCENARIOS=default)
	@tests/clean_hosts.sh
	@SCENARIOS='$(SCENARIOS)' tests/molecule.sh $(PLATFORMS)

.PHONY: bench
bench: setup ## Measure against the tutorial's server and write docs/performance.md, 20 min (BENCH=quick tries it out)
	@mkdir -p $(OUTPUT)
	@bench/run.py $(if $(filter quick,$(BENCH)),--quick)

.PHONY: demo
demo: setup ## Deploy to a throwaway host on this machine, and leave it running for you to open
	@demo/run.sh

.PHONY: demo-clean
demo-clean: ## Remove what `make demo` made
	@demo/run.sh clean

.PHONY: lock
lock: setup ## Write requirements/*.txt anew from requirements/*.in
	@for name in controller:3.10 dev:3.12 mlflow:3.10 oldest:3.10 passlib:3.9 libpass:3.9; do \
	  .cache/uv/bin/uv pip compile --quiet --no-config --universal --python-version $${name#*:} --upgrade --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command 'make lock' \
	    requirements/$${name%:*}.in --output-file requirements/$${name%:*}.txt; \
	done

.PHONY: clean
clean: ## Remove the test hosts, the tools and all output
	@if [ -x .venv/bin/podman ]; then demo/run.sh clean; tests/clean_hosts.sh; fi
	@rm -rf .venv .cache .pytest_cache .hypothesis $(OUTPUT)
