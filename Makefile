# imgproxy-cache: `make run` to try it, `make test` to test it. Needs Python 3.11 or newer, and no root.

.DEFAULT_GOAL := help
.PHONY: help run setup dev test check fix bench soak image-test lock clean

BIN := .venv/bin

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

run: setup ## start imgproxy-cache on a sample photograph, and say what to try
	@$(BIN)/python scripts/try-it

setup: ## make .venv with what `make run` needs
	@scripts/setup

dev:
	@scripts/setup dev

test: dev ## all tests, with a real S3 server and real sockets; ARGS="-k key" for some of them
	@$(BIN)/python -m pytest $(ARGS)

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
	@$(BIN)/python -m benchmarks $(ARGS)

soak: dev ## does memory stay flat? 100,000 renders by the engine, half an hour of load on the proxy; ARGS="--minutes 5"
	@$(BIN)/python -m benchmarks.soak $(ARGS)

image-test: dev ## build the container image on a stand-in base and run it (root, Debian or Ubuntu)
	@tests/image/run

lock: dev ## new versions and hashes in requirements/
	@scripts/lock

clean: ## remove .venv, tools, caches and the store of `make run`
	rm -rf .venv .dev .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist build
