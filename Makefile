# Two commands do everything on a fresh machine (Debian 12, Python 3.11, pip): `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := -c requirements-lock.txt
DATA ?= ../shared/data
OUT ?= demo

.PHONY: demo test check format bench train soak peers clean
.DEFAULT_GOAL := demo

$(VENV)/bin/python:
	@$(PYTHON) -m venv $(VENV) 2>/dev/null \
	 || { rm -rf $(VENV); $(PYTHON) -m virtualenv $(VENV) 2>/dev/null; } \
	 || { [ "$$(id -u)" = 0 ] && apt-get update -q && apt-get install -y -q python3-venv && $(PYTHON) -m venv $(VENV); } \
	 || { echo "A virtual environment is needed: install python3-venv (Debian: apt-get install python3-venv)" >&2; exit 1; }

# What the node needs.
$(VENV)/.node: pyproject.toml requirements-lock.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install -q --progress-bar on $(LOCK) -e .
	@touch $@

# What the tests and the training need as well.
$(VENV)/.dev: pyproject.toml requirements-lock.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install -q --progress-bar on $(LOCK) -e ".[dev,train]"
	@touch $@ $(VENV)/.node

demo: $(VENV)/.node
	$(BIN)/discnode demo --out $(OUT)

peers:
	@sh tests/install_peers.sh

# Two workers, each of which takes whole files, so that what a file's tests share is made once.
# WORKERS=0: all in one process.
WORKERS ?= 2
test: $(VENV)/.dev peers
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev
	$(BIN)/python -m tests.benchmarks.fitting --dosma out/dosma
	$(BIN)/python -m tests.benchmarks.registration
	$(BIN)/python -m tests.benchmarks.atlases
	$(BIN)/python -m tests.benchmarks.vendors
	$(BIN)/python -m tests.benchmarks.accuracy
	$(BIN)/python -m tests.benchmarks.objects
	$(BIN)/python -m tests.benchmarks.corrections
	$(BIN)/python -m tests.benchmarks.phantoms
	$(BIN)/python -m tests.benchmarks.change
	$(BIN)/python -m tests.benchmarks.cohort
	$(BIN)/python -m tests.benchmarks.cohort_null
	$(BIN)/python -m tests.benchmarks.cohort_size
	$(BIN)/python -m tests.benchmarks.cohort_planted
	$(BIN)/python -m tests.benchmarks.receive

# Long campaigns of faults and load (hours): a table for each, and failure if a limit is breached.
soak: $(VENV)/.dev peers
	$(BIN)/python -m tests.soak
	$(BIN)/python -m tests.soak.kill_receiver
	$(BIN)/python -m tests.soak.fuzz_receiver
	$(BIN)/python -m tests.soak.outage
	$(BIN)/python -m tests.soak.kill_audit
	$(BIN)/python -m tests.soak.power_cut

# Goes on where it was stopped. Without DATA, and where the usual folder is missing, simulated slices alone are learnt
# from, and that is said; a folder that was asked for must be there.
TRAINING ?= out/training
PROFILE ?= cpu
train: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/discnode train run --profile $(PROFILE) --out $(TRAINING) --resume \
	 $(if $(filter-out file,$(origin DATA))$(wildcard $(DATA)),--data $(DATA))
	OMP_NUM_THREADS=1 $(BIN)/discnode train export --run $(TRAINING)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
