# make demo    the first experiment in full, on real data: table, verdicts, pictures
# make test    the whole test suite, on all cores
# make floor   the tests of the rooms on the oldest versions that are supported, those of tests/floor.txt
# make soak    the long tests of what must hold for hours, killed and resumed runs among them
# make lint    style, and the arrows between the rooms
# make bench   the benchmarks as one table, with the machine
#
# All of them make the environment first, in .venv (`floor` in .venv-floor). `make test PYTHON=/path/to/python3.13` picks a Python; where .venv has
# another version, that one gets an environment of its own, .venv-3.13.

MINOR = import sys; print("%d.%d" % sys.version_info[:2])
usable = $(shell $(1) -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo '$(1)')

ifdef PYTHON
version := $(shell $(PYTHON) -c '$(MINOR)' 2>/dev/null)
VENV := $(if $(filter-out $(version),$(shell .venv/bin/python -c '$(MINOR)' 2>/dev/null)),.venv-$(version),.venv)
python = $(or $(call usable,$(PYTHON)),$(error PYTHON=$(PYTHON) does not run, is older than 3.11, or lacks venv and ensurepip))
else
VENV := .venv
python = $(or $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(call usable,$(name)))),$(error \
	No Python from 3.11 on that runs and has venv and ensurepip (Debian, Ubuntu: python3-venv) is in PATH; name one: make $(MAKECMDGOALS) PYTHON=/path/to/python))
endif
FLOOR := $(VENV)-floor

# Installs $(1) and writes the stamp. `installing` stays where an install was cut off, and that environment is made anew; one that was whole before an
# install failed (no network) is kept. uv is quick; pip does without it. $(2) are options of both.
define install
@test ! -e $(VENV)/installing || rm -rf $(VENV)
@mkdir -p $(VENV) && touch $(VENV)/installing
@test -x $(VENV)/bin/pip || $(python) -m venv $(VENV)
@$(VENV)/bin/python -m pip install -q uv || echo "uv is not to be had: going on with pip"
@echo "installing cljax$(1:.%=%) and what it stands on into $(VENV)"
@$(VENV)/bin/uv pip install -q --compile-bytecode --python $(VENV)/bin/python $(2) -e '$(1)' || $(VENV)/bin/python -m pip install -q $(2) -e '$(1)' \
	|| { test ! -e $(VENV)/ok || rm $(VENV)/installing; exit 1; }
@mv $(VENV)/installing $@
endef

.PHONY: demo test floor soak lint bench

demo: $(VENV)/ok
	$(VENV)/bin/python experiments/contrastive_behaviour.py --workers

test: $(VENV)/dev
	$(VENV)/bin/python -m pytest -n auto

# The rooms alone, and of each parametrised test one case, the first or the last in turns: what else there is (experiments, notebooks, README, examples
# of docstrings, wheel, Makefile, lint) says the same on any version, or takes long, or both.
ROOMS = $(filter-out tests/experiments/ tests/reliability/,$(wildcard tests/*/))

floor: $(FLOOR)/ok
	$(FLOOR)/bin/python -m pytest -n auto --few-cases $(ROOMS)

soak: $(VENV)/dev
	SOAK=1 $(VENV)/bin/python -m pytest tests/reliability -n auto

lint: $(VENV)/dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/lint-imports

bench: $(VENV)/ok
	$(VENV)/bin/python benchmarks

$(VENV)/ok: requirements.txt pyproject.toml $(wildcard $(VENV)/installing)
	$(call install,.)

$(VENV)/dev: $(VENV)/ok
	$(call install,.[dev])

$(FLOOR)/ok: VENV := $(FLOOR)
$(FLOOR)/ok: requirements.txt pyproject.toml tests/floor.txt $(wildcard $(FLOOR)/installing)
	$(call install,.[dev],-c tests/floor.txt)
