# Everything runs in .venv, from hashed requirement files; uv is installed into .tools where it is missing.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
# uv finds a Python that is new enough by itself; what a person names is taken.
UV_PYTHON_OPTION := $(if $(filter file,$(origin PYTHON)),,--python $(PYTHON))
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
BIN := .venv/bin
export FLOE_HOME ?= $(CURDIR)/.floe
export DAGSTER_HOME ?= $(FLOE_HOME)/dagster
export DBT_SEND_ANONYMOUS_USAGE_STATS = false
export DO_NOT_TRACK = 1
PYTEST_WORKERS ?= auto

.PHONY: help setup run dev compile docs test test-ui test-services services-up services-down demo-local bench bench-growth bench-services bench-telemetry audit lint lock lock-check clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1|/' | column -t -s '|'

.tools/bin/uv:
	@echo "uv is not on PATH: installing it into .tools"
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.x"'
	@$(PYTHON) -m venv .tools
	@.tools/bin/pip install --quiet --disable-pip-version-check uv

.venv/.ready: requirements-dev.txt pyproject.toml | $(filter .tools/bin/uv,$(UV))
	@echo "setting up .venv"
	@test -x $(BIN)/python || $(UV) venv --quiet --python-preference only-system $(UV_PYTHON_OPTION) .venv
	@$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements-dev.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

setup: .venv/.ready $(DAGSTER_HOME)/dagster.yaml ## make the environment

$(DAGSTER_HOME)/dagster.yaml: deploy/local/dagster.yaml
	@mkdir -p $(@D) && cp $< $@

run: setup ## compile and run the three products, then show what was published
	@$(BIN)/floe-dagster run

dev: setup ## dagster dev with the three products
	@$(BIN)/dagster dev -w workspace.yaml

compile: setup ## compile the three products
	@$(BIN)/floe-dagster compile

docs: setup ## write docs/schemas and the tables of fields from the models
	@$(BIN)/python -m tests.generate_docs

test: setup ## unit, contract and integration tests
	@$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

test-ui: setup ## the pages of dagster dev in a real browser; needs Chromium
	@$(BIN)/python -m pytest tests/ui $(PYTEST_ARGS)

services-up: setup ## start MinIO and an Iceberg REST catalog on this machine; needs Go, Java and Maven
	@$(BIN)/python deploy/services/control.py up

services-down: setup ## stop them; their data stays under .floe/services
	@$(BIN)/python deploy/services/control.py down

test-services: setup ## tests against real MinIO and a real REST catalog; needs FLOE_SPECS, Go, Java and Maven
	@$(BIN)/python deploy/services/control.py build
	@$(BIN)/python -m pytest tests/services -n $(PYTEST_WORKERS) --dist worksteal $(PYTEST_ARGS)

demo-local: setup ## the three products through the REST catalog and MinIO, read back by PyIceberg and DuckDB
	@$(BIN)/python deploy/services/demo.py

bench: setup ## measure against dbt, plain dagster-dbt and DuckDB; writes docs/benchmarks.md
	@$(BIN)/python -m tests.benchmarks --write docs/benchmarks.md

bench-growth: setup ## measure how times grow with the number of models (an hour)
	@$(BIN)/python -m tests.benchmarks --growth --write docs/benchmarks.md

bench-services: setup ## measure publication to MinIO over the REST catalog; needs Go, Java and Maven
	@$(BIN)/python -m tests.benchmarks --services --write docs/benchmarks.md

bench-telemetry: setup ## measure what traces, metrics and lineage cost a run, also with receivers in trouble (half an hour)
	@$(BIN)/python -m tests.benchmarks --telemetry --write docs/benchmarks.md

audit: setup ## secrets in the repository, known vulnerabilities of the dependencies
	@$(BIN)/python -m tests.audit

lint: setup ## linters, types, layers, lock
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(MAKE) --no-print-directory lock-check

LOCK = $(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --python-version 3.11 pyproject.toml

lock: | $(filter .tools/bin/uv,$(UV)) ## refresh the hashed requirement files
	@$(LOCK) --upgrade --no-annotate -o requirements.txt
	@$(LOCK) --upgrade --no-annotate --extra dev -o requirements-dev.txt

lock-check: setup ## fail where the requirement files do not fit pyproject.toml
	@$(BIN)/python -m tests.lock_check

clean: ## remove what the project wrote
	@rm -rf .floe .venv .tools products/*/target
