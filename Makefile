# `make` alone lists what there is. Needs Python 3.11 and git; no root, no Docker, no database, no Node.js.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PY := .venv/bin/python
SETUP := $(PYTHON) infra/embedded/setup.py
# Two test processes, each with its own database, on any machine with two cores or more.
PYTEST_WORKERS ?= 2
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo run test test-quick lint format docs docs-check bench lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F '\t' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: ## Build .venv, .venv-programs and the front end (quick when nothing changed)
	@$(SETUP)

setup-dev: ## The same, with what tests, lint and types need
	@$(SETUP) --dev

demo: setup ## Start everything, play the whole story, leave the portal running (ARGS=--exit: stop afterwards)
	@$(PY) -m infra.embedded demo $(ARGS)

run: setup ## Start everything with the data of last time, without the story
	@$(PY) -m infra.embedded up

test: setup-dev ## The whole test suite, the browser journey included (ARGS="-k word" to choose)
	@$(PY) -m pytest -n $(PYTEST_WORKERS) --dist loadfile $(ARGS)

test-quick: setup-dev ## Tests without the slow and the browser ones
	@$(PY) -m pytest -n $(PYTEST_WORKERS) --dist loadfile -m "not slow and not browser" $(ARGS)

lint: setup-dev ## Style, types, direction of imports, missing migrations
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@.venv/bin/lint-imports
	@$(PY) -m infra.embedded services -- $(PY) manage.py makemigrations --check --dry-run

format: setup-dev ## Put the code into shape
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

docs: setup-dev ## Write the generated pages of docs/reference (states, roles, API)
	@$(PY) manage.py reference_docs

docs-check: setup-dev ## Fail when a generated page is not what the code says
	@$(PY) manage.py reference_docs --check

bench: setup-dev ## Measure runs, sealing, pages and verification, and print the table
	@$(PY) -m tests.bench $(ARGS)

lock: setup-dev ## Resolve every dependency anew and write requirements/*.txt
	@bash infra/embedded/lock.sh

clean: ## Remove var/ with all data, without asking; refused while a stack runs
	@if [ -x $(PY) ]; then $(PY) -m infra.embedded clean; else rm -rf var; fi
