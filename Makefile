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
# Without bytecode every process compiles Dagster and dbt anew, which takes seconds each time; .venv is ours to write into.
unexport PYTHONDONTWRITEBYTECODE
PYTEST_WORKERS ?= auto
# Tests run in a random order, whose seed pytest prints; with this one they run in that order again.
PYTEST_SEED ?=
PYTEST := $(BIN)/python -m pytest $(if $(PYTEST_SEED),--randomly-seed=$(PYTEST_SEED))

.PHONY: help setup run dev compile docs test test-slow test-all check test-ui test-services test-trino test-deploy services-up services-down trino-up trino-down demo-trino demo-local compile-demo build-demo-image build-plus-image demo-check demo bench bench-growth bench-services bench-telemetry bench-many bench-trino audit lint lock lock-check dist sbom check-tag clean

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

SUITE = $(PYTEST) -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder

test: setup ## unit, contract and integration tests without the slow ones; PYTEST_SEED=123 for the order of an earlier run
	@$(SUITE) -m "not slow" $(PYTEST_ARGS)
	@echo "the tests that are marked slow were left to make test-slow; make test-all runs both"

test-slow: setup ## the slow ones: whole processes, and situations that are rare
	@$(SUITE) -m slow $(PYTEST_ARGS)

test-all: test test-slow ## every test that needs no server

check: setup ## before a commit: linters, types, layers, the unit tests of what changed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m tests.changed $(if $(PYTEST_SEED),--randomly-seed=$(PYTEST_SEED))

test-ui: setup ## the pages of dagster dev in a real browser; needs Chromium
	@$(PYTEST) tests/ui $(PYTEST_ARGS)

services-up: setup ## start MinIO and an Iceberg REST catalog on this machine; needs Go, Java and Maven
	@$(BIN)/python -m deploy.services.control up

services-down: setup ## stop them; their data stays under .floe/services
	@$(BIN)/python -m deploy.services.control down

test-services: setup ## tests against real MinIO and a real REST catalog; needs FLOE_SPECS, Go, Java and Maven
	@$(BIN)/python -m deploy.services.control build
	@$(PYTEST) tests/services -n $(PYTEST_WORKERS) --dist worksteal $(PYTEST_ARGS)

trino-up: setup ## start Trino beside them, coordinator and one worker; TRINO_ARGS="--workers 2"
	@$(BIN)/python -m deploy.services.trino up $(TRINO_ARGS)

trino-down: setup ## stop it; MinIO and the catalog go on
	@$(BIN)/python -m deploy.services.trino down

test-trino: setup ## tests against a real Trino on two nodes; needs Go, Java and Maven
	@$(BIN)/python -m deploy.services.control build
	@$(BIN)/python -m deploy.services.trino build
	@$(PYTEST) tests/trino $(PYTEST_ARGS)

demo-trino: setup ## the three products on Trino, a node of which is killed on the way
	@$(BIN)/python -m deploy.services.demo_trino

demo-local: setup ## the three products through the REST catalog and MinIO, read back by PyIceberg and DuckDB
	@$(BIN)/python -m deploy.services.demo

compile-demo: setup ## compile the three products for the cluster, into their target/
	@$(BIN)/python -m deploy.demo compile

build-demo-image: compile-demo ## build the image floe-dagster-demo with docker, podman or buildah; IMAGE_ARGS="-- --network host"
	@$(BIN)/python -m deploy.demo image $(IMAGE_ARGS)

PLUS_IMAGE ?= floe-dagster-plus:latest
build-plus-image: build-demo-image ## the same image, able to serve in Dagster+; needs docker, podman or buildah
	@$(BIN)/python -m deploy.dagster_plus --tag $(PLUS_IMAGE)

demo-check: setup
	@$(BIN)/python -m deploy.demo check

demo: demo-check build-demo-image ## the whole platform in a local Kubernetes cluster; needs kind, kubectl, helm and an engine
	@$(BIN)/python -m deploy.demo up

test-deploy: setup ## image and chart, really built and started; as root, needs buildah and debootstrap
	@$(PYTEST) tests/deploy -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

bench: setup ## measure against dbt, plain dagster-dbt and DuckDB; writes docs/benchmarks.md
	@$(BIN)/python -m tests.benchmarks --write docs/benchmarks.md

bench-growth: setup ## measure how times grow with the number of models (an hour)
	@$(BIN)/python -m tests.benchmarks --growth --write docs/benchmarks.md

bench-services: setup ## measure publication to MinIO over the REST catalog; needs Go, Java and Maven
	@$(BIN)/python -m tests.benchmarks --services --write docs/benchmarks.md

bench-telemetry: setup ## measure what traces, metrics and lineage cost a run, also with receivers in trouble (half an hour)
	@$(BIN)/python -m tests.benchmarks --telemetry --write docs/benchmarks.md

bench-many: setup ## run 50 products through the queue of dagster dev and look at limits and turns (ten minutes)
	@$(BIN)/python -m tests.benchmarks --many --write docs/benchmarks.md

bench-trino: setup ## measure TPC-H on DuckDB and on Trino with one node and two; needs Go, Java and Maven (half an hour)
	@$(BIN)/python -m tests.benchmarks --trino --write docs/benchmarks.md

audit: setup ## secrets in the repository, known vulnerabilities of the dependencies
	@$(BIN)/python -m tests.audit

lint: setup ## linters, types, layers, lock
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(MAKE) --no-print-directory lock-check

# The image and the tests have the versions of requirements.txt: a state's identity holds those of dbt.
LOCK = $(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --python-version 3.11 --upgrade

lock: | $(filter .tools/bin/uv,$(UV)) ## refresh the hashed requirement files
	@$(LOCK) pyproject.toml -o requirements.txt
	@$(LOCK) pyproject.toml --extra cluster --extra trino --constraint requirements.txt -o requirements-image.txt
	@$(LOCK) pyproject.toml --extra cluster --extra trino --extra dev --constraint requirements-image.txt -o requirements-dev.txt
	@$(LOCK) pyproject.toml --extra cluster --extra trino --extra plus --constraint requirements-image.txt -o requirements-plus.txt
	@$(LOCK) docker/dagster-demo/requirements-build.in -o docker/dagster-demo/requirements-build.txt
	@$(LOCK) tests/deploy/image/official.in -o tests/deploy/image/official.txt
	@$(LOCK) deploy/release/requirements-sbom.in -o deploy/release/requirements-sbom.txt

lock-check: setup ## fail where the requirement files do not fit pyproject.toml
	@$(BIN)/python -m tests.lock_check

dist: setup ## build wheel and source distribution into dist/
	@rm -rf dist
	@$(UV) build --quiet --python $(BIN)/python --out-dir dist
	@rm -f dist/.gitignore
	@ls -1 dist

.tools/sbom/.ready: deploy/release/requirements-sbom.txt | $(filter .tools/bin/uv,$(UV))
	@test -x $(@D)/bin/python || $(UV) venv --quiet --python-preference only-system $(UV_PYTHON_OPTION) $(@D)
	@$(UV) pip sync --quiet --python $(@D)/bin/python --require-hashes $<
	@touch $@

SBOM ?= build/sbom.cdx.json
sbom: .tools/sbom/.ready ## write build/sbom.cdx.json: what an installation may hold, with hashes (CycloneDX)
	@mkdir -p $(dir $(SBOM))
	@$(<D)/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --output-format JSON --output-file $(SBOM) requirements.txt

check-tag: setup ## fail where TAG is not the version in pyproject.toml
	@$(BIN)/python -m tests.release "$(TAG)"

clean: ## remove what the project wrote
	@rm -rf .floe .venv .tools products/*/target
