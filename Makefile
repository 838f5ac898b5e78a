# `make run` tries imgproxy-cache out, `make test` tests it. Needs Python 3.11 or newer, and no root.

.DEFAULT_GOAL := help
.PHONY: help run setup dev test test-oldest check fix bench soak image-test lock clean

BIN := .venv/bin
# Where scripts/setup has put uv, on a machine without one.
export PATH := $(CURDIR)/.dev/uv/bin:$(PATH)
# What takes a minute, and no other server than those that the tests are themselves. The slow ones
# among them, two in five of its seconds, are for one Python alone.
UNIT_TESTS := tests/core tests/engine tests/settings \
    tests/test_buffer.py tests/test_cli.py tests/test_imgproxy.py

# How all tests are run; those that ARGS names are run in one process, as by plain pytest. By file,
# for what a file shares is started once, in the order of their names: the last are short. On two
# cores one process took 10:36 minutes, three 4:56 and four no less: three keep both cores busy, and
# each reads all tests first, for 6 s of CPU.
ALL_AT_ONCE := -n 3 --dist loadfile --no-loadscope-reorder

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

run: setup ## start imgproxy-cache on a sample photograph, and say what to try
	@$(BIN)/python scripts/try-it

setup: ## make .venv with what `make run` needs
	@scripts/setup

dev:
	@scripts/setup dev

test: dev ## all tests, with a real S3 server and real sockets; ARGS="-k key" for some of them
	@$(BIN)/python -m tests.servers.build
	@$(BIN)/python -m pytest $(or $(ARGS),$(ALL_AT_ONCE))

test-oldest: ## the unit tests on the oldest Python of this machine, in .dev/oldest
	@PYTHON=$$(scripts/find-python oldest) VENV=.dev/oldest scripts/setup dev
	@.dev/oldest/bin/python -m pytest -m "not slow" $(UNIT_TESTS) $(or $(ARGS),$(ALL_AT_ONCE))

check: dev ## format, lint, types, import rules, dead code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture

fix: dev ## repair what the tools of `make check` can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: dev ## what a request and a stored image cost, beside nginx, obstore and imgproxy alone
	@$(BIN)/python -m benchmarks

soak: dev ## two hours: 100,000 renders, half an hour of load, and the fault suite in its long form
	@$(BIN)/python -m benchmarks.soak
	@FAULTS=long $(BIN)/python -m pytest -q tests/faults
	@FAULTS=long $(BIN)/python -m pytest -q -s tests/faults/soak.py

image-test: dev ## build the container image on a stand-in base and run it (root, Debian or Ubuntu)
	@tests/image/run

lock: dev ## new versions and hashes in requirements/
	@scripts/lock

clean: ## remove .venv, tools, caches and the store of `make run`
	rm -rf .venv .dev .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist build
