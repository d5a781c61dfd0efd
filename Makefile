# `make demo` and `make test` set everything up by themselves; PYTHON=... chooses the interpreter.

.DEFAULT_GOAL := help
.PHONY: help demo test lint conformance bench claims truth null gaps published parts scale memory faults fuzz docs linkcheck dist check clean

BIN := .venv/bin
PYTHONS := $(or $(PYTHON),python3.11 python3.12 python3.13 python3)
DEMO := demo

# Networks this small gain little from a second thread, and threads that wait for each other lose much on shared cores.
export OMP_NUM_THREADS ?= 1

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.installed  ## Train pairs on handwritten digits and on a table with text and gaps, print the paths of the reports
	$(BIN)/zoo compare mixed "mixed[real=constrained|student-t]" --data penguins \
		--seeds 2 --samples 1000 --temperatures 20 --out $(DEMO)/penguins --overwrite
	$(BIN)/zoo compare gaussian-learned gaussian-constrained gaussian-identity gaussian-binned bernoulli gmm \
		--data digits --binarize threshold --seeds 2 --samples 1000 --temperatures 20 --out $(DEMO)/digits --overwrite

test: .venv/.installed  ## Run the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal  # a worker a core, whose tests share what modules make

lint: .venv/.installed  ## Run the linter, the formatter's check and the type checker
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

conformance: .venv/.installed  ## Hold every pair, compiled, to Pyro's own loss and gradients, and run the slow tests (minutes)
	$(BIN)/pytest -m slow -n auto --maxprocesses 4

bench: .venv/.installed  ## Measure steps and scores against torch by hand, Pyro and others, and studies by workers (minutes)
	$(BIN)/python scripts/benchmark.py 64-128-8 784-400-20 --out benchmark
	$(BIN)/python scripts/scoring_benchmark.py --out benchmark
	$(BIN)/python scripts/workers.py 1 2 --out benchmark/workers

claims: .venv/.installed  ## Put the seven claims of the question to computed tests, one page (minutes)
	$(BIN)/python scripts/claims.py claims

truth: .venv/.installed  ## Print closed-form and scikit-learn figures beside the zoo's (minutes)
	$(BIN)/python scripts/ground_truth.py

null: .venv/.installed  ## Count how often a pair is told apart from itself, seeds against other seeds (minutes)
	$(BIN)/python scripts/null_comparison.py

gaps: .venv/.installed  ## Put what is promised of missing entries to computed tests (minutes)
	$(BIN)/python scripts/gaps.py

published: .venv/.installed  ## Print orderings that papers report, ours beside theirs (minutes)
	$(BIN)/python scripts/published.py

parts: .venv/.installed  ## Measure guides, priors and objectives where the truth is known (minutes)
	$(BIN)/python scripts/parts.py

scale: .venv/.installed  ## Measure how time and memory grow with rows, columns, seeds and runs (an hour)
	$(BIN)/python scripts/scale.py

memory: .venv/.installed  ## Train on a table of 20 GB, which is written first, within 2 GB of memory (minutes)
	$(BIN)/python scripts/memory.py

faults: .venv/.installed  ## Kill training and damage files, and count what is lost (minutes)
	$(BIN)/python scripts/faults.py

fuzz: .venv/.installed  ## Look for files that break a reader, a minute for each kind (minutes)
	$(BIN)/pip install --quiet --disable-pip-version-check 'atheris>=3'
	$(BIN)/python scripts/fuzz.py

dist: .venv/.installed  ## Build wheel and sdist, check them, and use the wheel in a fresh environment (minutes)
	rm -rf dist
	$(BIN)/pip install --quiet --disable-pip-version-check build twine
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/python scripts/fresh_install.py dist/*.whl

docs: .venv/.docs  ## Build the documentation site, notebooks executed and links checked, in docs/_build/html (minutes)
	$(BIN)/sphinx-build -E -W --keep-going -q -b html -d docs/_build/doctrees docs docs/_build/html
	$(BIN)/python docs/check_links.py docs/_build/html

linkcheck: docs  ## Ask for every address outside the site that the documentation names (needs a network)
	$(BIN)/sphinx-build -q -b linkcheck -d docs/_build/doctrees docs docs/_build/linkcheck

check:  ## Run all that continuous integration runs
	.ci/run

clean:  ## Remove the environment, the demo and every cache
	rm -rf .venv build dist *.egg-info $(DEMO) claims docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last: an installation that broke off is not taken for done.
.venv/.installed: pyproject.toml $(wildcard constraints-*.txt)
	@set -e; \
	for python in $(PYTHONS); do \
		version=$$($$python -c 'import sys, venv, ensurepip; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
		[ -f constraints-$$version.txt ] || continue; \
		echo "Installing into .venv with Python $$version ..."; \
		$$python -m venv .venv; \
		$(BIN)/pip install --quiet --disable-pip-version-check -c constraints-$$version.txt -e '.[dev]'; \
		touch $@; \
		exit 0; \
	done; \
	echo "error: no Python 3.11 to 3.13 with venv among: $(PYTHONS). Name one: make PYTHON=/path/to/python3.11 ..." >&2; \
	exit 1

.venv/.docs: .venv/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[docs]' \
		-c constraints-$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])').txt
	touch $@
