# Each target does its own set-up: a virtual environment in .venv with pinned versions.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: demo test test-fast lint bench testbeds redteam clean

demo: $(VENV)/.installed
	$(BIN)/fedsci demo

test: lint test-fast
	$(BIN)/python -m pytest -q -m "slow and not whole_machine" -n 2 --dist loadfile
	$(BIN)/python -m pytest -q -m "slow and whole_machine"

test-fast: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -m "not slow" -n 2

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-dev
	for bench in benches/bench_*.py; do $(BIN)/python $$bench || exit 1; done

# every attack of the suite on the built-in study: claim, attack, result, verdict
redteam: $(VENV)/.installed
	$(BIN)/fedsci redteam demo

# DATA: a folder with heart/, oer_plates/ or grid_stability/ in it, for the testbeds that need real files
testbeds: $(VENV)/.installed
	for name in grid materials biosecurity; do $(BIN)/python -m examples.$$name.make_data || exit 1; done
	$(BIN)/python benches/bench_testbeds.py $(if $(DATA),--data $(DATA))

$(VENV)/.installed: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) '.[dev,ray,postgres,catalog]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
