# Everything a clone needs, from Python 3.11+ and make alone. `make help` lists the targets.
#
# What is installed or built leaves a stamp and is not done again until its inputs change.
# Nothing is installed outside of this directory, but for Chromium, PgBouncer, Prometheus, reverse proxies and bubblewrap:
# see .ci/chromium, .ci/pgbouncer, .ci/prometheus and .ci/proxies.

VENV ?= .venv
# Processes: by default two that compute, or three of tests, which wait for much of their time.
WORKERS ?=
SEEDS ?= 1000
FROM ?= 1
ARGS ?=
MINUTES ?= 30

# Whatever the locale of the caller: the C locale exists everywhere, and Python reads and writes UTF-8.
export LC_ALL := C
export PYTHONUTF8 := 1
# Containers often set it. The tests start hundreds of processes, and each would compile the whole package anew.
unexport PYTHONDONTWRITEBYTECODE
# The Node that .ci/node may put there is found by npm's own scripts too.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# The name of this distribution until 0.1.0: of two that own bin/collab, one would take it from the other.
FORGET := $(BIN)/python -m pip uninstall --quiet --disable-pip-version-check --yes collab 2>/dev/null || true
# Where every condition is known to be tested.
RULES := $(wildcard collab/protocol/hocuspocus/connection.py) collab/protocol/session.py collab/engine/room.py
WEB_SOURCES := $(shell find web_demo \( -name node_modules -o -name dist \) -prune -o -type f -print 2>/dev/null)
LOCKS := $(shell find web_demo tests -name node_modules -prune -o -name package-lock.json -print 2>/dev/null)

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help run cluster check simulate mutants test chaos lint format bench bench-nodes setup web demo-dev pictures wheel clean node chromium pgbouncer prometheus proxies

help: ## list the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1|/p' Makefile | awk -F'|' '{ printf "  make %-11s %s\n", $$1, $$2 }'
	@echo '  Add options with ARGS: make run ARGS="--port 4321", make test ARGS="-k journal", make test WORKERS=4'

run: $(VENV)/.run web_demo/dist/index.html ## set up, build the page, serve on http://127.0.0.1:1234 with ./data
	@exec $(BIN)/collab serve $(ARGS)

cluster: $(VENV)/.dev web_demo/dist/index.html proxies ## PostgreSQL, Valkey, three nodes and a load balancer, for trying; Ctrl-C ends all
	@exec $(BIN)/python -m tests.support.cluster $(ARGS)

# Needs the virtual environment alone: no Node, npm, Chromium, PostgreSQL or network.
check: $(VENV)/.dev ## lint, and the tests that need nothing else and are not long, with the gate of coverage: about a minute
	@.ci/check $(BIN)/python '$(MAKE) --no-print-directory lint' $(ARGS)

simulate: $(VENV)/.dev ## simulate a cluster with SEEDS=1000 seeds from FROM=1: everything that may fail, in virtual time
	@$(BIN)/python -m tests.simulation.run --seeds $(SEEDS) --from $(FROM) --jobs $(or $(WORKERS),2) $(ARGS)

mutants: $(VENV)/.dev ## invert each condition of the rules, one at a time: the fast tests must notice
	@$(BIN)/python -m tests.support.mutants --jobs $(or $(WORKERS),2) $(or $(ARGS),$(RULES))

test: setup ## set up and run every test
	@$(BIN)/python -m pytest -n $(or $(WORKERS),3) --dist loadgroup $(ARGS)

chaos: $(VENV)/.dev node ## trouble at random in a cluster of three nodes, for MINUTES=30; ends with 1 if anything is lost
	@$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(ARGS)

lint: $(VENV)/.dev ## check style, types, layers and lock files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict collab tests/client/usage.py examples/agent/agent.py examples/nightly-export/export.py
	$(BIN)/lint-imports
	@# A lock file that names a host installs from that host alone, whatever mirror its user has.
	@if grep -nE '://|^-| @ ' constraints.txt || grep -n '"resolved": "[a-z+]*:' $(LOCKS) /dev/null; then \
		echo 'lint: these lines name a host or an option; lock files hold versions and hashes only' >&2; exit 1; fi

format: $(VENV)/.dev ## bring the Python code into its format
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .

setup: $(VENV)/.dev $(VENV)/.deploy web_demo/dist/index.html chromium pgbouncer prometheus proxies ## set up all that the tests need
	@$(BIN)/python -c 'from tests.support.node import *; installed_packages(); installed_packages(DOCS_PACKAGES)'

bench: $(VENV)/.dev web_demo/dist/index.html node ## measure this server beside those on Node and Bun, write docs/benchmarks.md
	@$(BIN)/collab bench peers $(ARGS)

bench-nodes: $(VENV)/.dev node ## measure several nodes beside Hocuspocus with Redis, write it into docs/benchmarks.md
	@$(BIN)/python -m tests.bench.nodes --write $(ARGS)

web: web_demo/dist/index.html ## build the page

demo-dev: web_demo/node_modules/.installed ## serve the pages with hot reload, beside a server that `make run` has started
	@cd web_demo && npm run --silent dev

pictures: $(VENV)/.dev web_demo/dist/index.html chromium ## make the moving picture of the README from the pages as they are
	@$(BIN)/python -m tests.support.pictures

wheel: $(VENV)/.dev web_demo/dist/index.html ## build sdist and wheel into dist/
	$(BIN)/python -m hatchling build

clean: ## remove what make has built or installed; ./data stays
	rm -rf $(VENV) build dist web_demo/dist web_demo/node_modules tests/node/node_modules tests/docs/npm/node_modules
	rm -rf tests/peers/*/node_modules
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find collab tests migrations -name __pycache__ -prune -exec rm -rf {} +

# The server alone; `make check` and `make test` add the rest.
$(VENV)/.run: $(BIN)/python pyproject.toml constraints.txt
	@echo 'make: installing the server into $(VENV)'
	@$(FORGET)
	@$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	@echo 'make: installing the server and the tools of its tests into $(VENV)'
	@$(FORGET)
	@$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.run

# Large, and for `make test` alone.
$(VENV)/.deploy: $(VENV)/.dev
	@echo 'make: installing the tools that check what is deployed into $(VENV)'
	@$(PIP) -e '.[deploy]'
	@touch $@

# python3 first, so that the caller's choice counts; then by name, newest first.
$(BIN)/python:
	@for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "make: creating $(VENV) with $$("$$python" --version)"; \
			"$$python" -m venv $(VENV) && exit 0; \
			echo 'make: that Python cannot create a virtual environment (Debian, Ubuntu: apt install python3-venv)' >&2; \
			rm -rf $(VENV); exit 1; \
		fi; \
	done; echo 'make: Python 3.11 or newer is needed; name it with make PYTHON=/path/to/python3' >&2; exit 1

node: $(BIN)/python
	@.ci/node $(VENV)

chromium:
	@.ci/chromium

pgbouncer:
	@.ci/pgbouncer

prometheus:
	@.ci/prometheus

proxies:
	@.ci/proxies

web_demo/node_modules/.installed: web_demo/package-lock.json web_demo/package.json | node
	@echo 'make: installing the npm packages of the page'
	@cd web_demo && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

# Vite removes the old dist first, so a build that fails leaves none behind.
web_demo/dist/index.html: $(WEB_SOURCES) web_demo/node_modules/.installed | node
	@echo 'make: building the page'
	@cd web_demo && npm run --silent build -- --logLevel warn
	@touch $@
