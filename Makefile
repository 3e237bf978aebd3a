PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo test check unit format bench lock clean

demo: .venv/demo ## set everything up, then train, deploy and call a model with boto3
	@$(BIN)/python examples/demo.py

test: check unit ## set up what the tests need, then lint, types, import contracts and all tests

check: .venv/test
	$(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/mypy && $(BIN)/lint-imports

unit: .venv/test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

format: .venv/test ## rewrite the sources in the one style
	$(BIN)/ruff check --fix && $(BIN)/ruff format

bench: .venv/test ## the gateway beside nginx, and response streams
	$(BIN)/python benchmarks/gateway.py && $(BIN)/python benchmarks/streaming.py

lock: ## write requirements/*.txt anew from pyproject.toml (needs uv)
	requirements/lock.sh

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/demo .venv/test: .venv/%: requirements/%.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing what requirements/$*.txt locks (the first time takes a while) ..."
	@$(BIN)/pip install --quiet --require-hashes -r $<
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
