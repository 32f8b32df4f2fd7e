# Two commands do everything on a machine that has Python 3.11 or newer and make:
#   make demo    draw a data set, extract features, train four models, evaluate, write the report
#   make test    the test suite
# Each sets up .venv first, and skips what is already done.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-all faults results gpu lint format install dist clean

demo: $(INSTALLED)
	$(BIN)/vqa demo

# Two processes of one thread each: tests are small, and torch's threads would wait for each other.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-all: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "slow or not slow"

# Every kind of fault, some 2,800 cases in about 20 minutes; writes docs/reliability.md. Seventy are in make test.
faults: $(INSTALLED)
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m faults --write docs/reliability.md

# The tables of experiments/RESULTS.md and README, from the run folders that are there and the numbers that are kept.
results: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -m results

# What only a GPU can show, in about ten minutes; writes build/gpu.json and the last table of experiments/BENCHMARKS.md.
# Without a GPU it says what it skips, tries the rest small, and leaves the table as it is.
gpu: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -m gpu --out build/gpu.json --table experiments/BENCHMARKS.md

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(INSTALLED)

# The files to publish: dist/*.tar.gz and dist/*.whl. A build folder of an older version would slip into the wheel.
dist: $(INSTALLED)
	rm -rf build dist
	$(BIN)/python -m build

$(INSTALLED): requirements.txt pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "vqa needs Python 3.11 or newer; point make at one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $(INSTALLED)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
