# Everything runs in .venv, which infra/setup.sh makes from requirements.lock and reuses while the lock is unchanged.
PYTHON_ENV := .venv/bin/python
RUN := .venv/bin/fabrating
WORKERS ?= 2
DATA ?= peers
CHAOS ?=
SOAK ?=
NEXT := setup: ready. Next: make demo (two arms and a verdict), or make up (a stack for your own work); make help lists the rest.
COMMAND := The command fabrating is .venv/bin/fabrating, or fabrating after: . .venv/bin/activate

.DEFAULT_GOAL := help
.PHONY: help setup demo up down test test-servers test-slow test-faults lint format docs bench-data chaos soak lock

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 20

setup: ## Make the virtual environment and install Azurite
	@sh infra/setup.sh
	@$(if $(filter $@,$(MAKECMDGOALS)),printf '%s\n' "$(NEXT)" "$(COMMAND)")

demo: setup ## Start the local stack and run the demo, two arms to a verdict
	@$(RUN) demo

up: setup ## Start the local stack and leave it running
	@$(RUN) up

down: setup ## Stop the local stack
	@$(RUN) down

test: setup ## Run the tests that need neither a Prefect server nor hosts, without the slow proofs
	@$(PYTHON_ENV) -m pytest -n $(WORKERS) -m "not stack and not lab and not slow"

test-servers: setup ## Run the others: with a Prefect server, workers, PostgreSQL, a browser, and with SSH hosts (as root)
	@$(PYTHON_ENV) -m pytest -n $(WORKERS) -m "(stack or lab) and not slow"

test-slow: setup ## Run the slow proofs: kills and resumes, several machines, hosts under a Prefect server, real nanochat
	@$(PYTHON_ENV) -m pip install --quiet --disable-pip-version-check -r requirements-eval.lock || echo "test-slow: without lm-eval"
	@$(PYTHON_ENV) -m pytest -m slow

test-faults: setup ## Run a short form of chaos: killed preparation, killed trainer, cancelled experiment, failing store
	@$(PYTHON_ENV) -m pytest tests/chaos

lint: setup ## Check style and types
	@$(PYTHON_ENV) -m ruff check .
	@$(PYTHON_ENV) -m ruff format --check .
	@$(PYTHON_ENV) -m mypy

format: setup ## Fix style
	@$(PYTHON_ENV) -m ruff check --fix .
	@$(PYTHON_ENV) -m ruff format .

docs: setup ## Build the pages as a site in build/site; a link that leads nowhere fails
	@$(PYTHON_ENV) -m pip install --quiet --disable-pip-version-check -r requirements-docs.lock
	@NO_MKDOCS_2_WARNING=1 $(PYTHON_ENV) -m mkdocs build --strict

bench-data: setup ## Measure preparation against its alternatives; DATA="floor", DATA="peers --files 8", ...
	@$(PYTHON_ENV) -m benchmarks.data $(DATA)

chaos: setup ## Inject 35 kinds of faults into a small experiment and compare results (PostgreSQL, Azurite); CHAOS="--short", ...
	@$(PYTHON_ENV) -m tests.chaos.harness $(CHAOS)

soak: setup ## Send many small runs through two workers and check that each ran exactly once; SOAK="--runs 50"
	@$(PYTHON_ENV) -m tests.chaos.soak $(SOAK)

lock: ## Resolve pyproject.toml again and write requirements.lock
	@sh infra/lock.sh
