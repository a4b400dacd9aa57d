# make demo: see phrases find their things.  make test: the default test suite.  make lint: style and types.
# Needs python3 (3.11 or later), make and a package registry that pip knows.
.PHONY: demo test lint clean

VENV := .venv
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check --quiet
# An editable install sees changed sources by itself; only a changed pyproject.toml needs a new install.
export PYTHONPATH :=

demo: $(VENV)/.installed
	$(PYTHON) examples/demo.py --out demo-out

test: $(VENV)/.installed-dev
	$(PYTHON) -m pytest

lint: $(VENV)/.installed-dev
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m pyright --pythonpath $(PYTHON)

clean:
	rm -rf $(VENV) demo-out

$(PYTHON):
	python3 -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(PYTHON)
	@echo "installing deixis into $(VENV), some minutes the first time"
	$(PIP) install -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(PYTHON)
	@echo "installing deixis and its test tools into $(VENV), some minutes the first time"
	$(PIP) install -e '.[dev]'
	@touch $@ $(VENV)/.installed
