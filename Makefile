# Set-up is part of every target: each works on a fresh clone with nothing but Python 3.11 to 3.13.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RECIPE ?= ball-go-to-target
# The CUDA extra where an NVIDIA GPU answers.
comma := ,
GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null)
EXTRAS := test,report$(if $(GPU),$(comma)cuda)
# A file of pip's constraints, as .ci/run has one.
CONSTRAINTS ?=

.PHONY: train test suite lint hooks pictures docs docs-serve clean
.DEFAULT_GOAL := train

train: $(VENV)/.ready  ## train RECIPE (make train RECIPE=ant-go-to-target ARGS="--num-envs 4096")
	$(BIN)/mjx-hkl train $(RECIPE) $(ARGS)

test: lint suite  ## lint, types and all tests

suite: $(VENV)/.ready  ## all tests; where there is a GPU, those for one on it
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)
	$(if $(GPU),XLA_FLAGS= $(BIN)/python -m pytest -m "gpu or accelerator" $(ARGS) || test $$? -eq 5)

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

hooks: $(VENV)/.ready  ## lint and types at every commit
	$(BIN)/pre-commit install

pictures: $(VENV)/.ready  ## docs/worlds/: every environment in one picture
	mkdir -p docs/worlds
	for file in envs/*.toml; do name=$$(basename $$file .toml); \
	  $(BIN)/mjx-hkl render random:$$name docs/worlds/$$name.png --seed 1 --width 320 --height 240 || exit 1; done

docs: $(VENV)/.ready  ## the documentation site, in site/; warnings are errors
	JAX_PLATFORMS=cpu $(BIN)/python -m mkdocs build --strict $(ARGS)

docs-serve: $(VENV)/.ready  ## the same at http://127.0.0.1:8000, built again when a page changes
	JAX_PLATFORMS=cpu $(BIN)/python -m mkdocs serve $(ARGS)

$(VENV)/.ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) --editable '.[$(EXTRAS)]'
	touch $@

clean:
	rm -rf $(VENV) .venv-* dist site .pytest_cache .ruff_cache
