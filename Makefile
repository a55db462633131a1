# Everything goes through .venv, which infra/setup.sh makes from requirements.lock; a finished one is reused at once.
PYTHON_ENV := .venv/bin/python
RUN := .venv/bin/fabrating
WORKERS ?= 2
DATA ?= peers
CHAOS ?=
SOAK ?=
TOGETHER := chaos compare integration production stack

.DEFAULT_GOAL := help
.PHONY: help setup demo up down test test-slow test-faults test-unit lint format bench-data chaos soak lock

help: ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 20

setup: ## Make the virtual environment and install Azurite
	@sh infra/setup.sh

demo: setup ## Start the local stack and run the demo experiment to its end
	@$(RUN) demo

up: setup ## Start the local stack and leave it running
	@$(RUN) up

down: setup ## Stop the local stack
	@$(RUN) down

test: setup ## Run the tests; the slow proofs are left to test-slow
	@$(PYTHON_ENV) -m pytest -n $(WORKERS) -m "not slow"

test-slow: setup ## Run the slow proofs: kills and resumes, several machines, hosts under a Prefect server, real nanochat
	@$(PYTHON_ENV) -m pytest -m slow

test-faults: setup ## Run the short form of chaos: killed preparation, killed trainer, cancelled experiment, a store in trouble
	@$(PYTHON_ENV) -m pytest tests/chaos

test-unit: setup ## Run the rooms' own tests, which need neither a Prefect server nor hosts
	@$(PYTHON_ENV) -m pytest -n $(WORKERS) -m "not stack and not lab and not slow" $(TOGETHER:%=--ignore=tests/%)

lint: setup ## Check style
	@$(PYTHON_ENV) -m ruff check .
	@$(PYTHON_ENV) -m ruff format --check .

format: setup ## Repair style
	@$(PYTHON_ENV) -m ruff check --fix .
	@$(PYTHON_ENV) -m ruff format .

bench-data: setup ## Measure preparation against what else one would use; DATA="floor", DATA="peers --files 8", ...
	@$(PYTHON_ENV) -m benchmarks.data $(DATA)

chaos: setup ## Do faults of 24 kinds to a small experiment and compare what is left (PostgreSQL, Azurite); CHAOS="--short", "--faults a,b", ...
	@$(PYTHON_ENV) -m tests.chaos.harness $(CHAOS)

soak: setup ## Many small runs through two workers: none lost, none twice; SOAK="--runs 50"
	@$(PYTHON_ENV) -m tests.chaos.soak $(SOAK)

lock: ## Resolve pyproject.toml anew and write requirements.lock
	@sh infra/lock.sh
