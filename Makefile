# Commands for users, developers and CI; `make` alone lists them.
# Every one sets up .venv first if that is needed, and says nothing if it is not.
#   make setup PYTHON=/path/to/python3.12    another interpreter, 3.11 or newer
#   make setup VENV=/path/to/folder          another place for the environment
#   make recipes RECIPE_OPTIONS="--record docs/records/recipes.jsonl"

VENV ?= .venv
JOBS ?= 2
RUN = $(VENV)/bin/python
STAMP = $(VENV)/.bezoar-installed
# torch goes in alone and first: a requirement without an exact version, met while
# other packages are resolved, may bring gigabytes of CUDA.
PIP = $(RUN) -m pip install -q --disable-pip-version-check -c constraints.txt
# One thread per worker, and no look at the network from within a test.
PYTEST = OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(RUN) -m pytest -n $(JOBS) --dist worksteal
CHECKS = lint types test-all docs-check recipes-short

.DEFAULT_GOAL := help
.PHONY: help setup demo test fmt lint types docs bench recipes torture release check
.PHONY: test-all docs-check recipes-short

help:
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## make the environment; every other command does it by itself
	@:

$(STAMP): pyproject.toml constraints.txt
	@python=; for name in $(or $(PYTHON),python3 python3.11 python3.12 python3.13 python3.14); do \
	  if "$$name" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' \
	    >/dev/null 2>&1; then python=$$name; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "expected Python 3.11 or newer with venv and pip, got" \
	    "$$($(or $(PYTHON),python3) --version 2>&1 | head -n 1) at" \
	    "'$(or $(PYTHON),python3)'; install one (on Debian: python3 python3-venv)" \
	    "or name one: make setup PYTHON=/path/to/python3.11" >&2; \
	  exit 1; \
	fi; \
	echo "setting up $(VENV) with $$("$$python" --version); once, a few minutes"; \
	"$$python" -m venv $(VENV)
	@$(PIP) torch
	@$(PIP) -e '.[dev]'
	@touch $@

demo: $(STAMP) ## poison 1,797 digits, find the poison, retrain, measure
	@$(VENV)/bin/bezoar demo --out build/demo

test: $(STAMP) ## the tests that take seconds
	@$(PYTEST) -m 'not slow'

fmt: $(STAMP) ## format the code and mend what lint can mend
	@$(RUN) -m ruff format .
	@$(RUN) -m ruff check --fix .

lint: $(STAMP) ## style and docstrings
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .

types: $(STAMP) ## mypy, strict
	@$(RUN) -m mypy

docs: $(STAMP) ## write the tables and the command pages anew, check the links
	@$(RUN) docs/build.py

bench: $(STAMP) ## our speed against the plain loop of the paper
	@$(RUN) -m bezoar.bench

recipes: $(STAMP) ## every claim on small data, into build/recipes.json
	@HF_HUB_OFFLINE=1 $(RUN) recipes/run.py --out build/recipes.json $(RECIPE_OPTIONS)

# Coverage is that of the other tests: it would slow down what the pages show, and the
# lines that these reach are not looked at closely by them.
test-all: $(STAMP)
	@$(PYTEST) -m 'not example' --cov=bezoar --cov-report=term:skip-covered --cov-fail-under=95
	@$(PYTEST) -m example tests

docs-check: $(STAMP)
	@$(RUN) docs/build.py --check

# The limit stops what hangs; where the processor has AVX2 alone, all takes thrice as long.
recipes-short: $(STAMP)
	@HF_HUB_OFFLINE=1 $(RUN) recipes/run.py --short --limit 1200 --out build/recipes.json $(RECIPE_OPTIONS)

torture: $(STAMP) ## a hundred kills, full disks, hostile files: is anything lost?
	@OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(RUN) recipes/run.py faults $(RECIPE_OPTIONS)

release: ## wheel, sources and bill of materials into dist, built twice and tried
	@python3 recipes/release.py

check: $(STAMP) ## all of it: what CI runs
	@all=$$(date +%s); for step in $(CHECKS); do \
	  echo "== $$step"; begin=$$(date +%s); \
	  $(MAKE) --no-print-directory $$step || { echo "== $$step failed"; exit 1; }; \
	  echo "== $$step passed in $$(($$(date +%s) - begin)) s"; \
	done; echo "== all passed in $$(($$(date +%s) - all)) s"
