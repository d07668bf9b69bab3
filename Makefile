# Every target makes its own environment if there is none. PYTHON=... chooses the interpreter it is made with.

VENV   ?= .venv
# Looked for once, and only where it is needed.
PYTHON ?= $(eval PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
	$$p -c 'import venv, ensurepip' 2>/dev/null && { command -v $$p; break; }; done))$(PYTHON)
EXTRAS ?= all
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# The stamp names the extras that are installed. EXTRAS=... on the command line adds those that it lacks.
COMMA     := ,
INSTALLED := $(subst $(COMMA), ,$(shell cat $(STAMP) 2>/dev/null))
WANTED    := $(sort $(INSTALLED) $(subst $(COMMA), ,$(EXTRAS)))
LACKING   := $(if $(filter command environment,$(origin EXTRAS)),$(filter-out $(INSTALLED),$(WANTED)))
# The demo needs a part of it; what it installs is there already when the rest is asked for.
DEMO_EXTRAS := train,report
DEMO_STAMP  := $(if $(wildcard $(STAMP)),$(STAMP),$(VENV)/.installed-demo)
# CONSTRAINTS=constraints.txt takes the versions that were tested together.
PIP    = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
TYPED  := -p nervecord.compiler -p nervecord.runtime -p nervecord.targets -p nervecord.training \
	-p nervecord.cli -m nervecord

# One thread per process: the arrays are small, and threads would fight over the cores.
export OMP_NUM_THREADS ?= 1
# Tests start hundreds of processes, which would compile every module anew.
export PYTHONDONTWRITEBYTECODE :=

BENCH    := build/bench
# With results as JSON for docs/benchmarks.md, and as they print them: of these the first three stand in it.
MEASURED := latency scaling returns compile_cost verbs
PRINTED  := c_cortex fused_update train_cost sigma_delta warp_speed choices conformance c_conformance lava_conformance lava_faults

.DEFAULT_GOAL := help
.PHONY: help install demo docs fuzz agreement faults audit test test-all test-long test-quick test-slow test-lava test-lava-dl test-neurobench test-exporters test-warp test-mjlab check format bench clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1|/' | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

install: $(STAMP)  ## make .venv with nervecord (editable) and everything it can use, or EXTRAS=... of it

# An environment of this interpreter, which must be one that can make it.
define environment
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or later with venv was found. Install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than Python 3.11, which nervecord needs: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "Installing $(1) into $(VENV) with $(PYTHON); where torch is part of it, it takes longest." >&2
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(PIP) --editable '.[$(1)]'
	@echo "$(1)" > $@
endef

$(STAMP): pyproject.toml $(if $(LACKING),FORCE)
	$(call environment,$(subst $() ,$(COMMA),$(WANTED)))

FORCE:

$(VENV)/.installed-demo: pyproject.toml
	$(call environment,$(DEMO_EXTRAS))

demo: $(DEMO_STAMP)  ## train a spiking ant, compile it for Loihi 2, run it beside the float policy: 4 to 12 minutes
	$(BIN)/nervecord demo --html $(DEMO)

ALL_CORES := -n auto --maxprocesses 8 --dist loadfile

test: $(STAMP)  ## the test suite, in minutes, on all cores
	$(BIN)/python -m pytest -c tests/pytest.ini -m "not long and not slow and not lava and not lava_dl" tests $(or $(PYTEST),$(ALL_CORES))

test-long: $(STAMP)  ## the tests of seconds each: trainings, builds, processes of their own
	$(BIN)/python -m pytest -c tests/pytest.ini -m "long and not slow and not lava and not lava_dl" tests $(or $(PYTEST),$(ALL_CORES))

test-all: test test-long test-slow  ## all tests: those of seconds and of minutes too (fresh environments, benchmarks)

test-quick: $(STAMP)  ## the tests of all that needs no torch: EXTRAS=mujoco,plot,video,dev is enough for them
	$(BIN)/python -m pytest -c tests/pytest.ini -m "not slow and not lava and not lava_dl" \
	tests/cli tests/compiler tests/runtime tests/targets tests/test_repository.py $(PYTEST)

test-slow: $(STAMP)  ## the slow tests, and all examples of what the suite tries on a part
	$(BIN)/python -m pytest -c tests/pytest.ini -m "(slow or hypothesis) and not lava and not lava_dl" --all-examples tests $(PYTEST)

test-lava: $(STAMP)  ## install Lava, then bit-exact conformance with it: 250 random graphs
	$(BIN)/nervecord targets install lava
	$(BIN)/python -m pytest -c tests/pytest.ini -m lava --all-installed tests $(PYTEST)

test-neurobench: $(STAMP)  ## install NeuroBench without what only its data sets need, then compare the metrics with it
	$(PIP) --no-deps neurobench==2.3.0
	$(BIN)/python -m pytest -c tests/pytest.ini --all-installed tests/runtime/test_neurobench.py $(PYTEST)

test-exporters: $(STAMP)  ## install what exports ONNX files, then read and distill those
	$(PIP) --editable '.[exporters]'
	$(BIN)/python -m pytest -c tests/pytest.ini --all-installed \
	tests/compiler/test_onnx_read.py tests/training/test_network_teacher.py tests/cli/test_onnx.py $(PYTEST)

test-warp: $(STAMP)  ## install MuJoCo Warp (400 MB), then compare its Ant-v4 with Gymnasium's
	$(PIP) --editable '.[warp]'
	$(BIN)/python -m pytest -c tests/pytest.ini --all-installed tests/training/test_warp.py $(PYTEST)

test-mjlab:  ## install mjlab in .venv-mjlab, as it pins another MuJoCo, then train in it on the CPU for a few updates
	$(MAKE) VENV=.venv-mjlab EXTRAS=mjlab,dev install
	.venv-mjlab/bin/python -m pytest -c tests/pytest.ini --all-installed tests/training/test_mjlab.py $(PYTEST)

test-lava-dl: $(STAMP)  ## install lava-dl (1 GB), then load exported files with its netx
	$(BIN)/python -m pytest -c tests/pytest.ini -m lava_dl --all-installed tests $(PYTEST)

fuzz: $(STAMP)  ## 50,000 damaged files, an hour or more; make fuzz FUZZ="--first 1000000 --cases 5000 --bounds"
	$(BIN)/python tests/fuzz/campaign.py $(FUZZ)
	$(BIN)/python benchmarks/c_conformance.py --sanitize --graphs 300 --policies 150 --damaged 1500

agreement: $(STAMP)  ## inspect and compile on 5,000 random graphs and targets; make agreement AGREEMENT="--first 10000"
	$(BIN)/python tests/agreement/campaign.py $(AGREEMENT)

faults: $(STAMP)  ## 600 kills and full disks, an hour or more; make faults FAULTS="--kind train --kills 20"
	$(BIN)/python tests/faults/campaign.py $(FAULTS)
	$(BIN)/python tests/faults/full_disk.py

audit: $(STAMP)  ## look the installed packages, and Lava's, up among known vulnerabilities; for the nightly run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip-audit>=2.7,<3"
	$(BIN)/pip-audit --skip-editable
	$(BIN)/pip-audit --require-hashes --disable-pip -r targets/lava/requirements.txt

docs: $(STAMP)  ## the documentation site in build/site; a link or a name that leads nowhere ends it
	@$(BIN)/python docs/site.py

check: $(STAMP) docs  ## style, format, types, who may import what, workflows, the documentation's links
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=.types $(BIN)/mypy $(TYPED)
	MYPYPATH=.types $(BIN)/mypy docs/*.py
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.citation-file-format CITATION.cff
	@if command -v actionlint >/dev/null; then actionlint; else echo "actionlint is not here; .ci/nightly workflows has it" >&2; fi

format: $(STAMP)  ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## all benchmarks, half an hour or more; writes docs/benchmarks.md, and results to build/bench
	@mkdir -p $(BENCH)
	$(BIN)/nervecord targets install lava
	@set -e; for name in $(MEASURED); do echo "== $$name"; \
	$(BIN)/python benchmarks/$$name.py --json $(BENCH)/$$name.json; done
	$(BIN)/python benchmarks/cold_start.py --fresh --size --json $(BENCH)/cold_start.json
	$(BIN)/python benchmarks/snn_mlir.py --install $(BENCH)/snn-mlir --json $(BENCH)/snn_mlir.json
	@set -e; for name in $(PRINTED); do echo "== $$name"; \
	$(BIN)/python benchmarks/$$name.py > $(BENCH)/$$name.txt; cat $(BENCH)/$$name.txt; done
	$(BIN)/python benchmarks/report.py $(BENCH)

clean:  ## remove the environment and caches; trained runs and demos stay
	rm -rf $(VENV) .venv-* build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
