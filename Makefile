# Every target works on a machine that has Python 3.10+ and make, and nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PROTOS := $(shell cd proto && find . -name '*.proto' | sort | sed 's,^\./,,')
SERVICES := hetero_splitee/v1/service.proto
CIFAR10_ZIP ?= ../shared/data/cifar10.zip

.PHONY: help setup demo test learning-smoke chaos lint types proto check-proto check wheel-smoke bench cifar10 certs clean

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

setup: $(READY)  ## a virtual environment in .venv with everything that the targets below use

demo: $(READY)  ## one server and three clients with different cut layers learn real digits
	$(BIN)/python -m hetero_lab.fleet deploy/demo.yaml

test: $(READY)  ## the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

learning-smoke: $(READY)  ## every method and switch of hetero-sim, for a few steps each
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/learning/smoke.py

chaos: $(READY)  ## processes killed at many moments, attacks, load; the short part is in `make test`
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/chaos -m "slow or not slow"

lint: $(READY)  ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## mypy, strict
	$(BIN)/mypy

proto: $(READY)  ## regenerate the stubs beside their .proto
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iproto --python_out=proto --mypy_out=quiet:proto $(PROTOS)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iproto --grpc_python_out=proto --mypy_grpc_out=quiet:proto $(SERVICES)

check-proto: proto  ## the committed stubs are what the generator writes
	git diff --exit-code -- proto

check: lint types check-proto test  ## all of the above

wheel-smoke: $(READY)  ## the built wheel, alone, in a fresh environment
	rm -rf dist build/smoke
	$(BIN)/python -m build --wheel --outdir dist . >/dev/null
	$(PYTHON) -m venv build/smoke
	build/smoke/bin/pip install --quiet --constraint constraints.txt dist/*.whl
	cd build && for command in hetero-server hetero-client hetero-infer hetero-sim hetero-report hetero-certs; do smoke/bin/$$command --help >/dev/null || exit 1; done
	cd build && smoke/bin/hetero-client --list-cuts --width 8

bench: $(READY)  ## speed and memory, as ratios of one run (docs/performance.md)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/run.py

cifar10: $(READY)  ## real CIFAR-10, both strategies and centralized (half an hour on two cores)
	$(BIN)/python benchmarks/cifar10.py --zip $(CIFAR10_ZIP)

certs: $(READY)  ## certificates in DIR: make certs DIR=certs SERVER=host CLIENTS="board-1 board-2"
	$(BIN)/python -m hetero_server.certs $(DIR) $(if $(SERVER),--server $(SERVER)) $(CLIENTS:%=--client %)

clean:  ## forget builds and environments, keep runs
	rm -rf $(VENV) build dist
