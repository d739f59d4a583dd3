# Everything a fresh machine needs, which has Python 3.11 to 3.13, git and make:
#   make repro    install into .venv, then run the pipeline of params.yaml
#   make test     install into .venv, then run the tests
#   make mutants  draw FAULTS faults from SEED, and see that a test kills each
#   make soak     kill runs at random moments and resume them: KILLS of each backend; with RUNS or TRIALS, what these hold;
#                 then MUTANTS of specs from SEED, as make fuzz
# PYTHON=... chooses the interpreter. TORCH_INDEX=... adds a package index, for a torch without CUDA (see README.md).

SUITABLE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c '$(SUITABLE)' 2>/dev/null && { echo $$p; exit; }; done; echo python3)
endif

BIN := .venv/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
ifdef TORCH_INDEX
export PIP_EXTRA_INDEX_URL := $(TORCH_INDEX)
endif

export DVC_NO_ANALYTICS := 1

# DVC unpickles what lies in its site cache, which is open to every user of the machine unless it is told of another folder.
PRIVATE = $(BIN)/dvc config --local core.site_cache_dir "$$($(BIN)/python -c 'import pipelines.new as new; print(new.private_cache())')"

.PHONY: repro test fuzz mutants soak audit lint bench ui
.DELETE_ON_ERROR:

repro: .venv/installed
	$(BIN)/dvc repro

# Two test processes, one thread each: small nets lose tenfold to threads that wait for each other. tests/conftest.py says
# which runs what.
test: .venv/installed-dev
	$(BIN)/python tests/house.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(TESTS)

# Specs that people would not write; SEED=... draws others.
MUTANTS ?= 100000
SEED ?= 0
fuzz: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz.py --mutants $(MUTANTS) --trained 500 --seed $(SEED)

# Faults that nobody would plant; SEED=... draws others.
FAULTS := 40
mutants: .venv/installed-dev
	nice $(BIN)/python tests/mutants.py --faults $(FAULTS) --seed $(SEED)

# pip-audit has an environment of its own: what it needs is not ours to install.
audit: .venv/installed
	$(BIN)/python -m venv .venv/audit
	.venv/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	.venv/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --ignore-vuln GHSA-w8v5-vhqr-4h9v

KILLS := 20
RUNS := 0
TRIALS := 0
soak: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/soak.py --kills $(KILLS) --runs $(RUNS) --trials $(TRIALS)
	$(MAKE) fuzz

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p backends -p pipelines -m deltarule -m _deltarule

bench: .venv/installed
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/search.py

ui: .venv/installed
	$(BIN)/deltarule ui

.venv/bin/python:
	@$(PYTHON) -c '$(SUITABLE)' || { echo "deltarule needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is not one of them;" \
		"install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.13" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) --editable '.[all]'
	@$(PRIVATE)
	@touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) --editable '.[dev]'
	@$(PRIVATE)
	@touch $@ .venv/installed
