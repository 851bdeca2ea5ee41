# Development of the collection; `make` lists what there is. Needs Python 3.11 or newer; Debian or Ubuntu for all tests.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
ARGS ?=
# Processes that share the tests, in which files stay whole. Given ARGS, somebody looks at a part: then it is one, which
# shows what a test prints and knows --pdb.
WORKERS ?= $(if $(ARGS),0,$(shell echo $$(($$(nproc) + 1))))

# The checkout may be anywhere: a symbolic link gives it the place in which Ansible looks for collections.
link := .cache/collections/ansible_collections/pgkeep/backup
core := ansible_collections.pgkeep.backup.plugins.module_utils._core
in_venv := PATH="$(CURDIR)/.venv/bin:$$PATH"
run_pytest = $(in_venv) pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.cache/collections:$(CURDIR)/.cache/content
export ANSIBLE_HOME := $(CURDIR)/.cache/ansible
export LC_ALL := C.UTF-8
export HYPOTHESIS_STORAGE_DIRECTORY := $(CURDIR)/.cache/hypothesis
export PYTHON

# Continuous integration as root can run every test, so there a skipped test is a failure.
ifeq ($(CI)-$(shell id -u),true-0)
test: export PGKEEP_NO_SKIP := 1
endif

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: test
test: ## everything: installs what is missing, then lint, sanity, unit and integration tests, and hosts
	@tools/step.sh 'System packages' tools/system-packages.sh
	@tools/step.sh 'Python environment' $(MAKE) venv
	@tools/step.sh 'Lint' $(MAKE) lint
	@tools/step.sh 'Sanity (ansible-test)' $(MAKE) sanity
	@tools/step.sh 'Tests' $(MAKE) pytest
	@tools/step.sh 'Hosts (molecule)' $(MAKE) molecule

.PHONY: venv
venv: .venv/installed $(link) ## .venv with everything that development needs, at fixed versions

.PHONY: content
content: venv ## Ansible collections that benchmarks and linters need, into .cache/content
	@tools/content.sh

.PHONY: lint
lint: content ## formatters, linters, types and the layers of the engine
	.venv/bin/ruff check --quiet .
	.venv/bin/ruff format --check .
	.venv/bin/mypy -p $(core)
	.venv/bin/mypy --python-version 3.11 tests/postgres.py tests/conftest.py
	PYTHONPATH=plugins/module_utils .venv/bin/lint-imports --no-logo --cache-dir .cache/import-linter
	.venv/bin/shellcheck .ci/run tools/*.sh
	.venv/bin/yamllint --strict .
	$(in_venv) ansible-lint --strict
	$(in_venv) antsibull-changelog lint
	$(in_venv) .venv/bin/python tools/generate_docs.py --check

.PHONY: format
format: venv ## let ruff format the code and repair what it can
	.venv/bin/ruff check --fix-only --quiet .
	.venv/bin/ruff format .

.PHONY: sanity
sanity: venv ## ansible-test sanity on every supported Python of this machine (ARGS="--test validate-modules")
	$(in_venv) tools/ansible-test.sh sanity $(ARGS)

.PHONY: pytest
pytest: venv ## unit and integration tests (ARGS="-k retention -x", WORKERS=4)
	$(run_pytest) $(ARGS)

.PHONY: unit
unit: venv ## unit tests
	$(run_pytest) tests/unit $(ARGS)

.PHONY: integration
integration: venv ## integration tests, with real PostgreSQL servers
	$(run_pytest) tests/integration $(ARGS)

.PHONY: molecule
molecule: content ## the roles on hosts in containers (ARGS="-s fleet"); more with tools/molecule.sh
	tools/molecule.sh test $(ARGS)

.PHONY: molecule-clean
molecule-clean: ## remove the hosts, their network and their images
	tools/molecule.sh purge

.PHONY: bench
bench: content ## benchmarks
	$(in_venv) .venv/bin/python -m tests.bench $(ARGS)

.PHONY: demo
demo: ## a PostgreSQL with sample data in .cache/demo: back up, list, prune, restore, prove
	tools/demo.sh $(ARGS)

.PHONY: demo-clean
demo-clean: ## stop and remove the demo
	tools/demo.sh clean

.PHONY: docs
docs: venv ## write the generated parts of the documentation
	$(in_venv) .venv/bin/python tools/generate_docs.py $(ARGS)

.PHONY: build
build: venv ## the collection's archive, into .cache/build
	$(in_venv) ansible-galaxy collection build --force --output-path .cache/build

.PHONY: clean
clean: ## remove all that make has made
	if [ -d .cache/demo ]; then tools/demo.sh clean; fi
	if [ -d .cache/molecule ]; then tools/molecule.sh clean; fi
	rm -rf .ansible .cache .hypothesis .venv tests/output
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(link):
	@mkdir -p $(@D)
	@ln -sfn ../../../.. $@

# Made afresh where an earlier attempt was cut short or its Python is gone.
.venv/installed: requirements/dev.txt
	@"$$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, and $$PYTHON is not: name one, for example: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; \
	  exit 1; }
	@.venv/bin/python -m pip --version > /dev/null 2>&1 || "$$PYTHON" -m venv --clear .venv
	@.venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check --requirement $<
	@touch $@
