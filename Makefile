# Two commands: `make app` serves the app, `make test` runs every test. Both install what they need first.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The interpreter to build the environment with; `make app PYTHON=python3.11` chooses another.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
PY := $(VENV)/bin/python
# A stamp holds the hash of the pins, so a second run installs nothing and a changed pin installs again.
APP_STAMP := $(VENV)/.app-$(shell cat requirements.txt | cksum | cut -d' ' -f1)
TEST_STAMP := $(VENV)/.test-$(shell cat requirements.txt tests/requirements.txt | cksum | cut -d' ' -f1)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
ARGS ?=

.PHONY: help app test browser lint bench clean

help:
	@echo "make app    install (first time: a few minutes, about 2 GB) and serve the app; ARGS='--port 8000' passes options on"
	@echo "make test   install what tests need and run all of them"
	@echo "make lint   ruff and mypy"
	@echo "make bench  the benchmarks, one after the other"

$(PY):
	@if [ -z "$(PYTHON)" ]; then echo "No Python 3.11-3.13 with venv and pip was found. Install it (Debian: apt-get install python3 python3-venv), or name one: make app PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@echo "== Making the environment $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "The environment could not be made. On Debian install python3-venv; otherwise check the free space." >&2; exit 1; }

$(APP_STAMP): | $(PY)
	@echo "== Installing the pinned requirements (once; about 2 GB, a few minutes)"
	@$(PY) -m pip install --quiet --progress-bar on $$(grep '^torch==' requirements.txt) 2> >(grep -v 'is ignored: it is neither' >&2) || { echo "pip could not install torch. Check the network, the free space (df -h .) and that this platform has a build of that version." >&2; exit 1; }
	@$(PY) -m pip install --quiet --progress-bar on -r requirements.txt 2> >(grep -v 'is ignored: it is neither' >&2) || { echo "pip could not install requirements.txt. Check the network and the free space (df -h .), then run the command again: it goes on where it stopped." >&2; exit 1; }
	@touch $@

$(TEST_STAMP): $(APP_STAMP)
	@echo "== Installing what the tests need"
	@$(PY) -m pip install --quiet -r tests/requirements.txt 2> >(grep -v 'is ignored: it is neither' >&2) || { echo "pip could not install tests/requirements.txt; see the lines above." >&2; exit 1; }
	@touch $@

app: $(APP_STAMP)
	@echo "== Starting the app (stop it with Ctrl+C)"
	@$(PY) app.py $(ARGS)

browser: $(TEST_STAMP)
	@bash .ci/browser $(PY)

test: $(TEST_STAMP) browser
	@echo "== Running the tests"
	@# One thread each: two workers whose threads wait for each other keep a browser from its turn.
	@# Up to three that failed run once more, alone: a neighbour on two cores can make a browser late, a fault stays one.
	@rm -f .pytest_cache/v/cache/lastfailed
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 $(ARGS) || { \
		status=$$?; failed=$$($(PY) -c 'import json; print(len(json.load(open(".pytest_cache/v/cache/lastfailed"))))' 2>/dev/null || echo 99); \
		if [ $$status -ne 1 ] || [ $$failed -gt 3 ]; then exit $$status; fi; \
		echo "== $$failed failed above, beside other tests; once more, alone"; \
		OMP_NUM_THREADS=1 $(PY) -m pytest --last-failed $(ARGS) -n 0; }  # tests/conftest.py shares them out

lint: $(TEST_STAMP)
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy -p reviews -p huatuo

bench: $(TEST_STAMP)
	@for f in tests/benchmarks/*.py; do echo "== $$f"; $(PY) $$f; done

clean:
	rm -rf $(VENV)
