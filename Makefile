# Every target makes what it needs: a fresh machine needs Python 3.11+ and make, nothing else.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
OLDER := .venv-sqlalchemy-2.0
# Two processes at once, each with servers of its own: tests crash and stop them.
TWICE := -n 2 --dist loadgroup
STORES := conformance state_machine joining migrations alembic sqlite postgresql

.DEFAULT_GOAL := help

help: ## show the targets
	@sed -n 's/^\([a-z0-9.-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 22

demo: $(VENV)/demo ## run the main job on real photographs, in SQLite
	$(RUN)/python examples/thumbnails/demo.py

test: $(VENV)/check ## run the tests
	$(RUN)/python -m pytest $(TWICE) $(ARGS)

storm: $(VENV)/check ## kill, freeze, stop and simulate: the quick forms, in about 27 minutes
	$(RUN)/python -m pytest tests/storm $(ARGS)

soak: $(VENV)/check ## the full forms, for hours
	SAPWOOD_STORM=full $(RUN)/python -m pytest tests/storm $(ARGS)

test-sqlalchemy-2.0: $(OLDER)/test ## run the tests of all that speaks to databases, by SQLAlchemy 2.0
	# Another release changes neither what finds a mutant nor how a database plans a statement over a million rows.
	$(OLDER)/bin/python -m pytest $(TWICE) -k 'not mutant and not million and not hundred_queues' $(STORES:%=tests/test_%.py) $(ARGS)

check: lint types imports test ## run everything that must pass

lint: $(VENV)/check ## check style and format
	$(RUN)/ruff check
	$(RUN)/ruff format --check

types: $(VENV)/check ## check types
	$(RUN)/mypy

imports: $(VENV)/check ## check that imports point down
	$(RUN)/lint-imports

bench: $(VENV)/check ## measure the first figure: one worker draining no-op jobs
	$(RUN)/python benchmarks/drain.py

format: $(VENV)/check ## mend style and format
	$(RUN)/ruff check --fix
	$(RUN)/ruff format

build: $(VENV)/check ## build the wheel and the source archive
	$(RUN)/python -m build

clean: ## remove what the targets made
	rm -rf $(VENV) $(OLDER) build dist .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sapwood needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'

$(VENV)/demo: $(VENV)/bin/python pyproject.toml
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --editable . --group demo
	# The photographs are data files: the package's own dependencies are not needed to read them.
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'scikit-image>=0.25'
	touch $@

$(VENV)/check: $(VENV)/demo
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --editable . --group test --group check
	touch $@

$(OLDER)/test: pyproject.toml
	$(PYTHON) -m venv $(OLDER)
	$(OLDER)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(OLDER)/bin/python -m pip install --quiet --disable-pip-version-check --editable . --group test 'sqlalchemy~=2.0.36'
	touch $@

.PHONY: help demo test test-sqlalchemy-2.0 storm soak check lint types imports bench format build clean
