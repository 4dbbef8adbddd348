# make demo | make test | make check | make test-full | make test-faults | make bench
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# Programs that tests run, with their Debian packages: a browser, a DICOM validator, an image archive.
BROWSER := 'chromium:chromium fonts-liberation'
VALIDATOR := dciodvfy:dicom3tools
ARCHIVE := 'Orthanc:orthanc orthanc-dicomweb'

# Two processes on two cores; a file's tests stay together, since they share what is costly to make.
PYTEST := -m pytest --numprocesses 2 --dist loadfile

.PHONY: demo test check test-full test-faults format clean

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "FedLens needs $(PYTHON); install it, or run: make PYTHON=python3 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# torch first and pinned: an open range would pull gigabytes of CUDA libraries.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/fedlens demo --out demo

test: check
	.ci/debian-packages $(BROWSER) $(VALIDATOR)
	$(BIN)/python $(PYTEST) -m "not full and not faults"

test-full: check
	.ci/debian-packages $(BROWSER) $(VALIDATOR) $(ARCHIVE)
	$(BIN)/python $(PYTEST) -m "not faults"

# Kills, holds and cuts off real processes; alone on two cores it takes ten minutes.
test-faults: $(STAMP)
	$(BIN)/python -m pytest -m faults tests/faults

check: $(STAMP)
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix src tests benchmarks examples
	$(BIN)/ruff format src tests benchmarks examples

clean:
	rm -rf demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
