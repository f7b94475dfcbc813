# Every target works on a machine that has Python 3.10+ and make, and nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PROTOS := $(shell cd proto && find . -name '*.proto' | sort | sed 's,^\./,,')
SERVICES := hetero_splitee/v1/service.proto
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo podman-compose)
ENGINE := $(if $(findstring docker,$(COMPOSE)),docker,podman)
COMMITTED = $(shell git log -1 --format=%ct)
DEMO := certs server board-1 board-2 board-3
CIFAR10_ZIP ?= ../shared/data/cifar10.zip

.PHONY: help setup demo test test-web image compose-demo compose-kill learning-smoke chaos lint types proto check-proto check dist wheel-smoke docs bench cifar10 certs clean

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

test-web: $(READY)  ## page and metrics in a real browser and a real Prometheus; takes chromium, prometheus and promtool
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/web -m web

image:  ## the container image hetero-splitee:dev
	$(ENGINE) build --tag hetero-splitee:dev --file deploy/Dockerfile .

compose-demo:  ## server and three devices in containers, over TLS, to the table of results
	$(ENGINE) image inspect hetero-splitee:dev >/dev/null 2>&1 || $(MAKE) image
	-$(COMPOSE) -f deploy/compose.yaml down --volumes >/dev/null 2>&1
	$(COMPOSE) -f deploy/compose.yaml up $(DEMO)

compose-kill: $(READY)  ## the same, and a device and the server are killed while they train
	$(ENGINE) image inspect hetero-splitee:dev >/dev/null 2>&1 || $(MAKE) image
	COMPOSE="$(COMPOSE)" ENGINE=$(ENGINE) $(BIN)/python -m pytest tests/containers -m containers

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

docs: $(READY)  ## the documents as a site in site/, its links checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

dist: $(READY)  ## wheel and sdist in dist/, bit for bit the same for the same commit
	rm -rf dist build/sdist && mkdir -p build/sdist
	SOURCE_DATE_EPOCH=$(COMMITTED) $(BIN)/python -m build --outdir dist . >/dev/null
	# setuptools leaves the times of the files and of the build in an sdist: packed anew without.
	tar -xzf dist/*.tar.gz -C build/sdist
	tar --sort=name --mtime=@$(COMMITTED) --owner=0 --group=0 --numeric-owner --mode=go=rX,u+rw -C build/sdist -cf - $$(ls build/sdist) \
		| gzip -n9 > $$(echo dist/*.tar.gz)
	cd dist && sha256sum *

wheel-smoke: $(READY)  ## the built wheel, alone, in a fresh environment
	rm -rf dist build/smoke
	$(BIN)/python -m build --wheel --outdir dist . >/dev/null
	$(PYTHON) -m venv build/smoke
	build/smoke/bin/pip install --quiet --constraint constraints.txt dist/*.whl
	cd build && for command in hetero-server hetero-client hetero-infer hetero-status hetero-sim hetero-report hetero-certs; do smoke/bin/$$command --help >/dev/null || exit 1; done
	cd build && smoke/bin/hetero-client --list-cuts --width 8

bench: $(READY)  ## speed and memory, as ratios of one run (docs/performance.md)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/run.py

cifar10: $(READY)  ## real CIFAR-10, both strategies and centralized (half an hour on two cores)
	$(BIN)/python benchmarks/cifar10.py --zip $(CIFAR10_ZIP)

certs: $(READY)  ## certificates in DIR: make certs DIR=certs SERVER=host CLIENTS="board-1 board-2"
	$(BIN)/python -m hetero_server.auth.certs $(DIR) $(if $(SERVER),--server $(SERVER)) $(CLIENTS:%=--client %)

clean:  ## forget builds and environments, keep runs
	rm -rf $(VENV) build dist
