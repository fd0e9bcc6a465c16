# Everything runs in .venv, made from constraints.txt; PYTHON=python uses your own environment.
VENV := .venv
PYTHON := $(VENV)/bin/python
ifeq ($(PYTHON),$(VENV)/bin/python)
RUN := $(VENV)/installed
DEV := $(VENV)/installed-dev
DOCS := $(VENV)/installed-docs
endif
ROOMS := agents core envs networks scripts training
FAST := -q -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

# test-oldest, test-newest: an interpreter to make their environment with, and more words for pip
BASE := python3
WITH :=
BESIDE = $(VENV)-$*-$(notdir $(BASE))
PIP_oldest = -c $(BESIDE)/oldest.txt
PIP_newest = --upgrade --upgrade-strategy eager

.PHONY: train test test-slow test-oldest test-newest planted check docs dev figures bench clean

train: $(RUN)   ## Q-learning on FrozenLake, about half a minute after installing
	$(PYTHON) scripts/train.py --agent q-learning --env FrozenLake-v1 --steps 300000 --eval-every 60000 --eval-episodes 1000

test: $(DEV)   ## the fast suite
	$(PYTHON) -m pytest $(FAST)

test-slow: $(DEV)   ## kills, soak, equality, learning: about an hour on two cores
	$(PYTHON) -m pytest -q -n 2 --dist worksteal -m slow

test-oldest test-newest: test-%:   ## the fast suite with the oldest packages of setup.cfg, or the newest there are
	@$(BASE) -V > /dev/null 2>&1 || { echo "no interpreter $(BASE): install it, or name one by BASE=python3.12"; exit 1; }
	test -e $(BESIDE) || $(BASE) -m venv $(BESIDE)
	sed -n '$(if $(findstring torch==,$(WITH)),/^ *torch /d;)s/^ *\([a-z0-9-]*\) >= \([0-9.]*\).*/\1==\2/p' setup.cfg | sort -u > $(BESIDE)/oldest.txt
	$(BESIDE)/bin/python -m pip install -q --disable-pip-version-check $(PIP_$*) $(WITH) -e ".[dev]"
	$(BESIDE)/bin/python -m pytest $(FAST)

planted: $(DEV)   ## ten kinds of bugs in a copy of the sources: do the tests find them?
	$(PYTHON) tests/planted.py

check: $(DEV)   ## format, lint, types
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy

docs: $(DOCS)   ## the documentation as a site: docs/_build/index.html
	$(PYTHON) -m sphinx -b html -W --keep-going -q docs docs/_build

figures: $(DEV)   ## what agents reach: measures what is missing, writes docs/figures.md
	$(PYTHON) benchmarks/figures.py

bench: $(DEV)   ## the speed of tabular agents beside their peers
	$(PYTHON) benchmarks/tabular.py

dev: $(DEV)   ## an editable installation with all that development needs

$(VENV)/bin/python:
	python3 -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python setup.cfg constraints.txt
	$(PYTHON) -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[plot]"
	touch $@

$(VENV)/installed-dev: $(VENV)/bin/python setup.cfg constraints.txt
	$(PYTHON) -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	mkdir -p typings/seqrl
	for room in $(ROOMS); do ln -sfn ../../$$room typings/seqrl/$$room; done
	ln -sfn ../../root/__init__.py ../../root/__main__.py typings/seqrl/
	touch $@ $(VENV)/installed

$(VENV)/installed-docs: $(DEV)
	$(PYTHON) -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-* typings build docs/_build *.egg-info
