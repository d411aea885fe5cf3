PYTHON ?= python3
BIN := .venv/bin
PARALLEL := --numprocesses 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
DEMO := runs/demo-$(shell date +%Y%m%d-%H%M%S)

.PHONY: help setup demo test test-fast check format bench docs clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/installed  ## install everything into .venv (about 7 GB, most of it torch)

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev,docs]'
	touch $@

demo: setup  ## search the digits, which takes a few minutes on 2 cores
	$(BIN)/generalist-search sweep --data digits --budget 2e6 --out $(DEMO)

test: check  ## check lint and types, then run all tests
	$(BIN)/pytest $(PARALLEL) --cov --cov-report=term --cov-fail-under=90

test-fast: setup  ## run the tests that need no Ray, in under two minutes
	$(BIN)/pytest $(PARALLEL) -m 'not slow'

check: setup  ## check lint and types without changing anything
	$(BIN)/hadolint Dockerfile
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup  ## format the code and fix what the linter can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup  ## compare with a reference, then measure time as ratios
	$(BIN)/python -m benchmarks.train_step
	$(BIN)/python -m benchmarks.suggestion_time

docs: setup  ## write docs/cli.md, and build the documentation into site/; warnings are errors
	$(BIN)/python docs/commands.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## remove the environment and caches, but not runs/
	rm -rf .venv *.egg-info .mypy_cache .pytest_cache .ruff_cache .coverage
