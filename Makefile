# make demo, make test: from a bare checkout, with Python >= 3.10. Environments live in .venv*.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_FLAGS := --quiet --disable-pip-version-check
WORKERS ?= 2

.PHONY: demo test test-native test-oldest lint format clean

demo: $(VENV)/.demo
	$(BIN)/python -m hccs_onnx demo -o hccs-demo

test: $(VENV)/.test
	$(BIN)/python -m pytest -n $(WORKERS)

# The oldest onnx, onnxruntime and friends that are supported, in an environment of their own.
test-oldest: $(VENV)-oldest/.test
	$(VENV)-oldest/bin/python -m pytest -n $(WORKERS)

# The C++ custom-op library, which is not part of the package yet.
test-native: $(VENV)/.test
	$(BIN)/python -m pip install $(PIP_FLAGS) cmake ninja
	PATH="$(abspath $(BIN)):$$PATH" CMAKE_GENERATOR=Ninja $(BIN)/python -m pytest custom_ops/test

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_FLAGS) -e .
	touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_FLAGS) -e ".[test]"
	touch $@

$(VENV)/.lint: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install $(PIP_FLAGS) -e ".[lint]"
	touch $@

$(VENV)-oldest/.test: pyproject.toml tests/oldest.txt
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install $(PIP_FLAGS) -e ".[test]" -c tests/oldest.txt
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-oldest hccs-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
