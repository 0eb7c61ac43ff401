# The commands of asheard. Each works from a bare checkout: `make setup` runs when it is needed.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PROTOS := $(wildcard proto/asheard/v1/*.proto)
IN_C := native/_speedups.c words/aligner/kernel.c

.DEFAULT_GOAL := help
.PHONY: help setup run demo test test-fast test-python coverage fuzz check fmt proto proto-check bench wheel lock clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(READY) ## build .venv with everything and generate the stubs

$(READY): pyproject.toml requirements.lock $(IN_C) $(PROTOS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "asheard needs Python 3.11 or newer; set PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(MAKE) --no-print-directory proto
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

run: setup ## serve the whole system on this machine until Ctrl-C
	@ASHEARD_TWILIO_VALIDATE=$${ASHEARD_TWILIO_VALIDATE:-off} exec $(BIN)/asheard up --simulate-missing

demo: setup ## one bakery call through all services; exit 0 only if the heard transcript is right
	@exec $(BIN)/asheard demo

# Half of a test's time is waiting, so three processes share two cores. Whole systems run after that,
# in two: their simulated telephones and models speak in real time, and wait most of it.
test: setup ## the whole test suite; PYTEST_ARGS="tests/gateway -k clear" for some of it, in one process
ifdef PYTEST_ARGS
	@exec $(BIN)/pytest -q $(PYTEST_ARGS)
else
	@$(BIN)/pytest -q -n 3 --dist loadfile --ignore tests/system
	@$(BIN)/pytest -q -n 2 --dist loadfile tests/system
endif

test-fast: setup ## the cores alone (tests/cores.txt), properties with a few examples: a quarter of a minute
	@ASHEARD_TEST_EXAMPLES=few exec $(BIN)/pytest -q -n 2 $$(grep -v '^#' tests/cores.txt)

AROUND_NATIVE := tests/native tests/bench/test_load_frames.py \
	$(addprefix tests/gateway/,test_caller_path.py test_media_connection.py test_barriers.py test_lifecycle.py turns) \
	$(addprefix tests/session/,test_caller_input.py test_call.py test_barriers.py test_link.py)
test-python: setup ## what is around the compiled half of native/, with Python's half; and a call through all services
	@ASHEARD_NATIVE=python $(BIN)/pytest -q -n 2 --dist loadfile $(AROUND_NATIVE)
	@ASHEARD_NATIVE=python $(BIN)/asheard demo

# 98 % were measured on 2026-11-27, in nine minutes beside other work; what only whole systems reach
# (tests/system) is not in it.
COVERAGE_FLOOR ?= 96
coverage: setup ## what the tests reach of what runs in production, in percent; fails below COVERAGE_FLOOR
	@exec $(BIN)/pytest -q -n 2 --dist loadfile --ignore tests/system \
	--cov --cov-report=term:skip-covered --cov-fail-under=$(COVERAGE_FLOOR)

SECONDS ?= 60
fuzz: setup ## odd input for each part; SECONDS=60 each; FUZZ_ARGS="--jobs 2 --seed 1 model"
	@exec $(BIN)/python -m fuzz --seconds $(SECONDS) $(FUZZ_ARGS)

bench: setup ## the benchmarks, each result as one JSON line
	@exec $(BIN)/asheard bench all

check: setup ## what CI runs beside the tests: lint, types, proto lint, stubs in step
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint proto
	@$(MAKE) --no-print-directory proto-check

fmt: setup ## format the code
	$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

proto: ## generate the stubs in asheard/ from proto/
	@$(BIN)/python proto/generate.py .

proto-check: ## fail when the committed stubs are not what proto/ gives
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && $(BIN)/python proto/generate.py "$$fresh" \
	&& diff -r --exclude=__pycache__ --exclude=__init__.py asheard/v1 "$$fresh/asheard/v1" \
	&& echo "stubs are in step with proto/"

wheel: setup ## dist/: the client, what others install (the system is not for upload)
	@work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && cp -r asheard "$$work/" \
	&& $(BIN)/pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps --wheel-dir dist "$$work/asheard" \
	&& ls dist/*.whl

lock: ## pin all dependencies anew (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet --group dev pyproject.toml -o requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet --group build --constraints requirements.lock pyproject.toml -o requirements-runtime.lock

clean: ## remove what the targets above made
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache asheard.db asheard.db-*
