# Two commands on a fresh machine: `make demo` and `make test`. Everything is installed into VENV; stamp files there
# record what has been done, so that a repeated call costs nothing.
# VERSIONS=oldest|tested|newest chooses the set of dependencies; each has an environment of its own.
VERSIONS ?= tested
ifeq ($(filter $(VERSIONS),oldest tested newest),)
$(error VERSIONS=$(VERSIONS) is not known: write VERSIONS=oldest, VERSIONS=tested or VERSIONS=newest)
endif
VENV ?= .venv$(if $(filter tested,$(VERSIONS)),,-$(VERSIONS))
PYTHON ?= python3
JOBS ?= 2
RUNS ?= 20000
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
# Compiled modules are kept: the suites start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

ifeq ($(VERSIONS),oldest)
# In torch 2.12 TorchScript rounds DeBERTa's float64 through float32 once it has run in float32: references are off by 1e-8.
export PYTORCH_JIT := 0
endif

# TORCH=cpu or cuda chooses the build of torch; by default by whether a GPU is seen.
ifndef TORCH
TORCH := $(shell nvidia-smi -L 2>/dev/null | grep -q '^GPU ' && echo cuda || echo cpu)
endif
ifeq ($(filter $(TORCH),cpu cuda),)
$(error TORCH=$(TORCH) is not known: write TORCH=cpu or TORCH=cuda)
endif

PINS := constraints.txt
ifneq ($(VERSIONS),tested)
PINS := constraints/$(VERSIONS).txt constraints.txt
endif
CONSTRAINTS := $(VENV)/constraints.txt
TORCH_VERSION := $(shell sed -n 's/^torch==//p' $(PINS) | head -n 1)
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# JOBS processes take equal parts of the tests in the order of collection; one that has ended takes half of what another
# has left. Modules stay whole but at these borders. (With whole modules, `--dist loadfile`, a process that dies makes
# pytest-xdist give out its finished modules again and wait for ever.)
SHARED_OUT := -n $(JOBS) --dist worksteal
STAMP_VENV := $(VENV)/.made
STAMP_TORCH := $(VENV)/.torch-$(TORCH)
STAMP_DEMO := $(VENV)/.installed-demo
STAMP_DEV := $(VENV)/.installed-dev
STAMP_DOCS := $(VENV)/.installed-docs
STAMP_FUZZ := $(VENV)/.installed-fuzz
STAMP_TRITON := $(VENV)/.installed-triton
TRITON_VERSION := 3.9.0
# DeepSpeed is a source distribution whose build imports torch, so torch comes first and the build is not isolated.
# DS_BUILD_OPS=0: nothing is compiled now; an op that is needed later is built on its first use.
INSTALL := DS_BUILD_OPS=0 $(PIP) install --no-build-isolation -c $(CONSTRAINTS)
PYTEST := $(BIN)/python -m pytest
CPP := $(wildcard ftsys/kernels/native/*.cpp ftsys/kernels/native/*.h)

.PHONY: help install demo test test-long test-triton test-cluster fuzz mutants check house format docs bench package sbom audit release clean
help:
	@echo "make demo       install, train on the synthetic sample, print the metric table; TORCH=cpu|cuda"
	@echo "make test       the test suite, in JOBS=2 processes; VERSIONS=oldest|newest: with the oldest or newest dependencies, in .venv-oldest or .venv-newest"
	@echo "make check      format, lint, types, unit tests: what to run before a commit"
	@echo "make house      figures of the code's layout: sizes, folders, imports against the order, cycles; ARGS=--verbose lists the places"
	@echo "make format     rewrite the sources in the project's format"
	@echo "make test-long  the tests that take minutes, in JOBS=2 processes"
	@echo "make test-triton  the GPU's attention kernels in Triton's interpreter and as machine code; part of make test"
	@echo "make test-cluster  virtual hosts and a SLURM cluster on this machine: needs root; installs Debian's sshd and slurm"
	@echo "make fuzz       RUNS=20000 files for each reader, chosen by the branches that they reach; part of make test-long"
	@echo "make mutants    changes modules in one place at a time in a copy, and counts the changes that their nearest tests notice"
	@echo "make docs       the documentation: writes its generated pages, builds the site into build/site"
	@echo "make bench      the benchmarks"
	@echo "make package    wheel and source distribution into dist/, checked for missing files"
	@echo "make sbom       a CycloneDX bill of materials of constraints.txt into dist/; needs no network"
	@echo "make audit      pins, installed files, licences; OSV=PyPI-all.zip: known weaknesses by a local copy of OSV's database; needs no network"
	@echo "make release    packages, bill of materials and audit: what a release consists of, and what it must pass"
	@echo "make install    everything into $(VENV), and no more"
	@echo "make clean      remove $(VENV) and the tools' caches; runs/ stays"

$(STAMP_VENV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "ftsys needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version 2>&1`. Name another: make PYTHON=python3.12" >&2; \
	  exit 2; }
	@echo "== virtual environment in $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) cannot make a virtual environment. On Debian or Ubuntu: apt install python3-venv" >&2; exit 2; }
	@touch $@

# The first pin of a package counts, so those of a set lie over the tested ones.
$(CONSTRAINTS): $(STAMP_VENV) $(PINS)
	@awk -F== '!/^#/ && NF == 2 && !($$1 in seen) { seen[$$1]; print }' $(PINS) > $@

# Left alone, pip takes the CUDA build on Linux (its requirements name nvidia packages) unless the user's own index or
# wheel folder holds a CPU build; PyTorch's CPU index is asked only in the first case. `===` refuses a "+cpu" build.
$(STAMP_TORCH): $(CONSTRAINTS)
	@echo "== torch $(TORCH_VERSION), $(TORCH) build"
	@rm -f $(VENV)/.torch-*
	@$(PIP) install -c $(CONSTRAINTS) setuptools ninja
ifeq ($(TORCH),cuda)
	@$(PIP) install 'torch===$(TORCH_VERSION)'
else
	@index=; \
	if $(PIP) install --quiet --dry-run --ignore-installed --no-deps --report - torch==$(TORCH_VERSION) | grep '"nvidia-' > /dev/null; \
	then index="--extra-index-url $(TORCH_CPU_INDEX)"; fi; \
	$(PIP) install --retries 1 --upgrade torch==$(TORCH_VERSION) $$index
endif
	@touch $@

$(STAMP_DEMO): $(STAMP_TORCH) pyproject.toml
	@echo "== ftsys and what it stands on"
	@$(INSTALL) -e '.[demo]'
	@touch $@

$(STAMP_DEV): $(STAMP_DEMO)
	@echo "== the developers' tools"
	@$(INSTALL) -e '.[demo,dev]'
	@touch $@

$(STAMP_DOCS): $(STAMP_DEMO)
	@echo "== the documentation's tools"
	@$(INSTALL) -e '.[demo,docs]'
	@touch $@

install: $(STAMP_DEV)

demo: $(STAMP_DEMO)
	@$(BIN)/ftsys demo

test: $(STAMP_DEV)
	$(PYTEST) $(SHARED_OUT) -m "not long and not gpu and not cluster" $(ARGS)
	@if [ "$$(uname -sm)" = "Linux x86_64" ]; then $(MAKE) test-triton; else echo "test-triton: Triton is made for Linux"; fi

test-long: $(STAMP_DEV)
	$(PYTEST) $(SHARED_OUT) -m "long and not gpu and not cluster" $(ARGS)
	FTSYS_FUZZ_EXAMPLES=5000 $(PYTEST) -n $(JOBS) tests/fuzz
	$(MAKE) fuzz

$(STAMP_FUZZ): $(STAMP_DEV)
	@$(INSTALL) --only-binary atheris -e '.[demo,dev,fuzz]'
	@touch $@

fuzz: $(STAMP_FUZZ)
	$(BIN)/python -m tests.fuzz.every $(JOBS) -runs=$(RUNS)

# Next to the environment, not in it: DeepSpeed would load it, whose exit then prints pages into every log.
$(STAMP_TRITON): $(STAMP_DEV)
	$(PIP) install --target $(VENV)/triton triton==$(TRITON_VERSION)
	touch $@

test-triton: $(STAMP_TRITON)
	TRITON_INTERPRET=1 PYTHONPATH=$(VENV)/triton $(PYTEST) -n $(JOBS) tests/parity/kernels/test_triton_attention.py \
	  tests/parity/kernels/test_triton_layers.py tests/parity/models/test_triton_view.py
	PYTHONPATH=$(VENV)/triton $(PYTEST) -n $(JOBS) tests/parity/kernels/test_triton_binaries.py \
	  tests/parity/kernels/test_triton_layer_binaries.py

test-cluster: $(STAMP_DEV)
	tests/cluster/install.sh
	$(PYTEST) tests/cluster -m cluster $(ARGS)

mutants: $(STAMP_DEV)
	$(BIN)/python -m tools.mutants $(ARGS)

check: $(STAMP_DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run -Werror $(CPP)
	$(BIN)/mypy
	$(PYTEST) tests/unit $(SHARED_OUT) -m "not long and not gpu" -x -q $(ARGS)
	-@$(BIN)/python -m tools.house

house: $(STAMP_DEV)
	@$(BIN)/python -m tools.house $(ARGS)

format: $(STAMP_DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $(CPP)

# Strict: a link or an anchor that leads nowhere is an error. The variable silences an advertisement.
docs: $(STAMP_DOCS)
	$(BIN)/python -m tools.docs.pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(STAMP_DEV)
	$(PYTEST) benchmarks --benchmark-only $(ARGS)

package: $(STAMP_DEMO)
	$(BIN)/python -m tools.packages.build

sbom: $(STAMP_DEMO)
	$(BIN)/python -m tools.packages.sbom

audit: $(STAMP_DEMO)
	$(BIN)/python -m tools.packages.audit $(OSV)

release: package sbom audit

clean:
	test ! -e $(STAMP_VENV) || rm -rf $(VENV)
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	find ftsys launcher tests benchmarks tools -name __pycache__ -prune -exec rm -rf {} +
