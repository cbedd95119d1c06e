# Bare `make` lists the commands. `make demo` and `make test` set themselves up: they need Python 3.11+, make and a package registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt
MANIFESTS := constraints.txt requirements-dev.txt lib/fray/pyproject.toml lib/zephyr/pyproject.toml
PYTEST := $(BIN)/python -m pytest
N ?= 2000
JOBS ?= 3

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev fmt check test unit contract integration sim chaos load durability demo bench proto docs clean

help:  ## list the commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv

$(VENV)/.setup: $(BIN)/uv $(MANIFESTS)
	$(PIP) -e lib/fray -e lib/zephyr
	@touch $@

$(VENV)/.setup-dev: $(BIN)/uv $(MANIFESTS)
	$(PIP) -e 'lib/fray[ray,s3]' -e 'lib/zephyr[vortex]' -r requirements-dev.txt
	@touch $(VENV)/.setup $@

setup: $(VENV)/.setup  ## install Fray and Zephyr into .venv
setup-dev: $(VENV)/.setup-dev  ## the same, with what checks and tests need

demo: $(VENV)/.setup  ## the main job: count the words of the standard library on a controller and two workers
	@$(BIN)/fray run --workers 2 --num-cpus 1 examples/word_count.py --context fray $(ARGS)

fmt: $(VENV)/.setup-dev  ## format and fix the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: $(VENV)/.setup-dev  ## lint, types, import arrows, generated code fresh
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	bash lib/fray/scripts/generate_proto.sh --check

test: check  ## everything CI needs: checks, unit, contract over all contexts, integration, docs, and 2,000 simulated seeds
	@$(BIN)/python -m fray.testing.simulation --seeds 2000 --processes 1 --quiet & seeds=$$!; \
	$(PYTEST) -n $(JOBS) --dist loadfile $(T); tests=$$?; wait $$seeds && exit $$tests

unit: $(VENV)/.setup-dev  ## the fast part of the tests
	$(PYTEST) -m unit

contract: $(VENV)/.setup-dev  ## the contract suite alone; CTX=sync|threadpool|ray|fray for one context
	$(PYTEST) lib/fray/tests/test_contract.py -m '' $(if $(CTX),-k $(if $(filter ray,$(CTX)),on_ray,'$(CTX)-'))

integration: $(VENV)/.setup-dev  ## real servers, processes and Ray
	$(PYTEST) -m 'integration and not slow'

sim: $(VENV)/.setup-dev  ## simulate N seeds of faults, or the one SEED
	$(BIN)/python -m fray.testing.simulation $(if $(SEED),--seed $(SEED),--seeds $(N)) $(ARGS)

chaos: $(VENV)/.setup-dev  ## faults of all kinds on a real cluster for SECONDS=60; SEED=, WORKLOADS=flat,actors, ARGS='--json FILE'
	PYTHONPATH=lib/fray/tests:lib/fray/tests/actors $(BIN)/python -m chaos --seconds $(or $(SECONDS),60) \
		$(if $(SEED),--seed $(SEED)) $(if $(WORKLOADS),--workloads $(WORKLOADS)) $(ARGS)

load: $(VENV)/.setup-dev  ## limits under load at full size (half an hour, 12 GB of disk); ARGS='--only queued clients --json FILE'
	PYTHONPATH=lib/fray/tests $(BIN)/python -m load $(ARGS)

durability: $(VENV)/.setup-dev  ## the figures of docs/durability.md: hours; ARGS='--only restart', '--seeds 2000'
	$(BIN)/python benchmarks/durability.py $(ARGS)

bench: $(VENV)/.setup  ## measure against Ray and Dask side by side, in environments of their own
	$(BIN)/python benchmarks/run.py $(ARGS)

proto: $(VENV)/.setup-dev  ## generate code from fray.proto
	bash lib/fray/scripts/generate_proto.sh

docs: $(VENV)/.setup-dev  ## run the examples of README and docs
	$(PYTEST) lib/fray/tests/docs

clean:  ## remove environments, caches and results
	rm -rf $(VENV) out .pytest_cache .mypy_cache .ruff_cache .hypothesis benchmarks/.envs benchmarks/results
