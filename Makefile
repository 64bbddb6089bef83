# Two commands from a bare checkout with Python 3.11 or newer: `make demo` and `make test`.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Tests side by side: most of them wait for the processes that they have started.
JOBS   ?= 3
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help setup demo test test-page faults lint check audit clean
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(VENV)/.serving  ## create .venv and install what serving needs

demo: $(VENV)/.serving  ## four beds on this machine: streams, worker, live page; Ctrl-C stops it
	@$(BIN)/bedside demo

test: lint check  ## install the development tools, then lint, type-check and run the test suite

test-page: $(VENV)/.development  ## the tests of the live page, in headless Chromium; screenshots in build/screenshots
	$(BIN)/python -m pytest -m page -n 2 --dist worksteal $(PYTEST_ARGS)

faults: $(VENV)/.development  ## 200 faults, one after the other; the report is in build/faults.json
	@mkdir -p build
	$(BIN)/python -m tests.faults --json build/faults.json $(FAULTS_ARGS)

lint: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: $(VENV)/.development
	$(BIN)/python -m pytest -m "not page" -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

audit: $(VENV)/.serving  ## known vulnerabilities of the exact versions, and a bill of materials; in build/audit
	@$(MAKE) --quiet build/audit/.ready || { echo "not audited: the tools cannot be had"; exit 0; }; \
	build/audit/bin/cyclonedx-py environment --pyproject pyproject.toml \
	    -o build/audit/bill-of-materials.json $(BIN)/python || exit 1; \
	rm -f build/audit/vulnerabilities.json; \
	if build/audit/bin/pip-audit -r constraints.txt --no-deps --disable-pip --progress-spinner off \
	    -f json -o build/audit/vulnerabilities.json; then exit 0; fi; \
	[ ! -s build/audit/vulnerabilities.json ] || { echo "see build/audit/vulnerabilities.json"; exit 1; }; \
	echo "not audited: the list of vulnerabilities cannot be had"

# In an environment of their own: what they need is none of what Bedside needs.
build/audit/.ready:
	@$(PYTHON) -m venv build/audit
	@build/audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.10,<3' 'cyclonedx-bom>=7.5,<8'
	@touch $@

clean:  ## remove .venv and caches
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.serving: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Bedside needs Python 3.11 or newer; this is $$($(PYTHON) -V). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a minute or two, once)"
	@$(PIP) -e .
	@touch $@

$(VENV)/.development: $(VENV)/.serving
	@echo "installing the development tools (torch, OpenVINO and TensorRT-RTX among them) into $(VENV)"
	@$(PIP) -e '.[dev,train,openvino,tensorrt-rtx,lsl,mqtt,sdc,fuzz]'
	@touch $@
