# Everything runs in .venv, made from constraints.txt; PYTHON=python uses an environment of yours.
VENV := .venv
PYTHON := $(VENV)/bin/python
ROOMS := agents core envs networks scripts training

.PHONY: train test test-slow check dev bench clean

train: $(VENV)/installed   ## Q-learning on FrozenLake, about half a minute after installing
	$(PYTHON) scripts/train.py --agent q-learning --env FrozenLake-v1 --steps 300000 --eval-episodes 1000

test: $(VENV)/installed-dev   ## the fast suite
	$(PYTHON) -m pytest -q -m "not slow"

test-slow: $(VENV)/installed-dev   ## learning figures, kills, soak
	$(PYTHON) -m pytest -q -m slow

check: $(VENV)/installed-dev   ## format, lint, types
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy

bench: $(VENV)/installed-dev   ## the speed we claim, side by side
	$(PYTHON) benchmarks/tabular.py

dev: $(VENV)/installed-dev   ## all of it, editable

$(VENV)/bin/python:
	python3 -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python setup.cfg constraints.txt
	$(PYTHON) -m pip install -q --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/bin/python setup.cfg constraints.txt
	$(PYTHON) -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	mkdir -p typings/seqrl
	for room in $(ROOMS); do ln -sfn ../../$$room typings/seqrl/$$room; done
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) typings build *.egg-info
