# `make ablate` runs the main job, `make test` the suite; both install first. PYTHON chooses the interpreter (3.11 or newer).
# docs/tutorial.md has the commands of `install` for use without make; a test compares them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile
RUNS ?= runs
GRID ?= full
STUDY ?= regularizers
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: install ablate smoke report results study card world docs test test-all lint clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) 'pip>=25'  # older ones take three times as long to resolve
	$(PIP) -c constraints.txt torch setuptools wheel
	$(PIP) --no-build-isolation -c constraints.txt -e '.[dev]'
	$(PIP) --no-deps -c constraints.txt resemblyzer  # its weights are read, not its code
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true  # on all cores; some packages contain files of Python 2
	touch $@

ablate: install  # a cell that failed or diverged keeps no other one from being compared
	$(BIN)/python -m ablations.run --grid full --runs-dir $(RUNS); status=$$?; [ $$status -le 1 ] || exit $$status; \
	$(BIN)/python -m ablations.transfer --grid full --runs-dir $(RUNS) && exit $$status

smoke: install
	$(BIN)/python -m ablations.run --grid smoke --runs-dir $(RUNS)

report: install
	$(BIN)/python -m reports.run --grid $(GRID) --runs-dir $(RUNS)

results: install  # pastes reports on the runs in reports/records into README.md and docs/
	$(BIN)/python -m reports.results

study: install
	$(BIN)/python -m studies.run --study $(STUDY) --runs-dir $(RUNS)

card: install
	$(BIN)/python -m ablations.validate --runs-dir $(RUNS)

world: install
	$(BIN)/python -m ablations.world --runs-dir $(RUNS)
	$(BIN)/python -m ablations.validate --runs-dir $(RUNS)

docs: install
	$(BIN)/python -m mkdocs build --strict

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not long'

test-all: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

clean:
	rm -rf $(VENV) build *.egg-info
