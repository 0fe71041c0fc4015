# Every target does its own set-up first: `make demo` and `make test` work in a fresh clone.
#
#   ARGS="..."   goes to the program: make test ARGS="-k search -x"
#   CI=true      make test runs the slow tests too

# Not into the environment: a test that runs make would hand it on.
unexport ARGS
# The hundreds of programs that tests start read what was compiled once.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo setup setup-dev test test-slow soak check lint format bench reference clean

PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest
PY_FOLDERS := pgstack cli tests bench scripts
# Three processes, each with servers of its own: what waits leaves two cores to the others. In
# the order of the folders: e2e and faults, whose files take longest, do not come last.
PARALLEL := --numprocesses 3 --dist loadfile --no-loadscope-reorder
# `make soak` alone runs these: they take as long as they are told to.
EXCLUDED := $(if $(CI),not soak,not soak and not slow)

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Start everything here and answer a question from real documents
	@scripts/setup --quiet
	@.venv/bin/pgstack demo $(ARGS)
	@command -v pgstack >/dev/null || \
	  printf '\nTo type pgstack without a path:  export PATH="%s/.venv/bin:$$PATH"\n' "$(CURDIR)"

setup: ## Prepare .venv for the demo; show what is downloaded and how big it is
	@scripts/setup

setup-dev: ## Prepare .venv for test, check and bench, and fetch the small models
	@scripts/setup --dev --quiet

test: setup-dev ## Run the tests; with CI=true the slow ones too
	@$(PYTEST) -m "$(EXCLUDED)" $(PARALLEL) $(ARGS)

test-slow: setup-dev ## Run only the slow tests: the wheel, a newcomer's first minutes
	@$(PYTEST) -m "slow and not soak" $(ARGS)

# PGSTACK_SOAK_MINUTES=60, or PGSTACK_FAULT_RUNS=20 for so many runs of the suite.
soak: setup-dev ## Run the faults suite over and over, and the endurance test beside it
	@$(PYTHON) -m tests.faults.soak $(ARGS)

check: lint test ## Run everything a commit must pass: format, lint, types, tests

lint: setup-dev ## Check format, lint, types and SQL
	@$(PYTHON) -m ruff format --check --quiet $(PY_FOLDERS) || { echo "hint: make format" >&2; exit 1; }
	@$(PYTHON) -m ruff check --quiet $(PY_FOLDERS)
	@$(PYTHON) -m mypy
	@$(PYTHON) -m sqlfluff lint --config .sqlfluff sql
	@$(PYTHON) scripts/lint_sql.py
	@.venv/bin/shellcheck scripts/setup .ci/run

format: setup-dev ## Format the Python code, mend what ruff can mend
	@$(PYTHON) -m ruff check --fix --quiet $(PY_FOLDERS) || true
	@$(PYTHON) -m ruff format $(PY_FOLDERS)

bench: setup-dev ## Run every benchmark (one: make bench-NAME)
	@for file in bench/[a-z]*.py; do \
	  name=$$(basename "$$file" .py); \
	  echo "== $$name"; $(PYTHON) -m "bench.$$name" || exit 1; \
	done

bench-%: setup-dev
	@$(PYTHON) -m bench.$(subst -,_,$*) $(ARGS)

reference: setup-dev ## Write docs/reference/ anew
	@$(PYTHON) scripts/reference.py

clean: ## Stop what runs from here; remove .venv, downloads and builds (your data stays)
	@if [ -x .venv/bin/pgstack ]; then .venv/bin/pgstack down || true; fi
	rm -rf .venv .cache dist build bench/out .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
