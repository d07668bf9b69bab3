# Every target makes its own environment if there is none. PYTHON=... chooses the interpreter it is made with.

VENV   ?= .venv
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
	$$p -c 'import venv, ensurepip' 2>/dev/null && { command -v $$p; break; }; done)
EXTRAS ?= all
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
TYPED  := -p nervecord.compiler -p nervecord.runtime -p nervecord.targets -p nervecord.training \
	-p nervecord.cli -m nervecord

# One thread per process: the arrays are small, and threads would fight over the cores.
export OMP_NUM_THREADS ?= 1

BENCH    := build/bench
# With results as JSON for docs/benchmarks.md, and as they print them: of these the first three stand in it.
MEASURED := latency scaling returns compile_cost verbs
PRINTED  := c_cortex fused_update train_cost sigma_delta warp_speed conformance c_conformance lava_conformance lava_faults

.DEFAULT_GOAL := help
.PHONY: help install demo docs fuzz faults audit test test-quick test-slow test-lava test-lava-dl test-neurobench test-warp test-mjlab check format bench clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1|/' | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

install: $(STAMP)  ## make .venv with nervecord (editable) and everything it can use, or EXTRAS=... of it

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or later with venv was found. Install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than Python 3.11, which nervecord needs: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "Installing into $(VENV) with $(PYTHON); where torch is part of it, it takes longest." >&2
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	@touch $@

demo: $(STAMP)  ## train a spiking ant, compile it for Loihi 2, run it beside the float policy: 4 to 8 minutes
	$(BIN)/nervecord demo --html $(DEMO)

test: $(STAMP)  ## the test suite, in minutes, on all cores
	$(BIN)/python -m pytest -c tests/pytest.ini -m "not slow and not lava_dl" tests $(or $(PYTEST),-n auto --maxprocesses 8)

test-quick: $(STAMP)  ## the tests of all that needs no torch: EXTRAS=mujoco,plot,video,dev is enough for them
	$(BIN)/python -m pytest -c tests/pytest.ini -m "not slow and not lava and not lava_dl" \
	tests/cli tests/compiler tests/runtime tests/targets tests/test_repository.py $(PYTEST)

test-slow: $(STAMP)  ## the slow tests: fresh environments, long trainings
	$(BIN)/python -m pytest -c tests/pytest.ini -m "slow and not lava" tests $(PYTEST)

test-lava: $(STAMP)  ## install Lava, then conformance with it to the bit: 250 random graphs
	$(BIN)/nervecord targets install lava
	$(BIN)/python -m pytest -c tests/pytest.ini -m lava tests $(PYTEST)

test-neurobench: $(STAMP)  ## install NeuroBench without what only its data sets need, then compare the metrics with it
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps neurobench==2.3.0
	$(BIN)/python -m pytest -c tests/pytest.ini tests/runtime/test_neurobench.py $(PYTEST)

test-warp: $(STAMP)  ## install MuJoCo Warp (400 MB), then compare its Ant-v4 with Gymnasium's
	$(BIN)/python -m pip install --disable-pip-version-check --editable '.[warp]'
	$(BIN)/python -m pytest -c tests/pytest.ini tests/training/test_warp.py $(PYTEST)

test-mjlab:  ## install mjlab in .venv-mjlab, as it pins another MuJoCo, then train in it on the CPU for a few updates
	$(MAKE) VENV=.venv-mjlab EXTRAS=mjlab,dev install
	.venv-mjlab/bin/python -m pytest -c tests/pytest.ini tests/training/test_mjlab.py $(PYTEST)

test-lava-dl: $(STAMP)  ## install lava-dl (1 GB), then load exported files with its netx
	$(BIN)/python -m pytest -c tests/pytest.ini -m lava_dl tests $(PYTEST)

fuzz: $(STAMP)  ## 50,000 damaged files, an hour or more; make fuzz FUZZ="--first 1000000 --cases 5000 --bounds"
	$(BIN)/python tests/fuzz/campaign.py $(FUZZ)

faults: $(STAMP)  ## 600 kills and full disks, an hour or more; make faults FAULTS="--kind train --kills 20"
	$(BIN)/python tests/faults/campaign.py $(FAULTS)
	$(BIN)/python tests/faults/full_disk.py

audit: $(STAMP)  ## look the installed packages, and Lava's, up among known vulnerabilities; for the nightly run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip-audit>=2.7,<3"
	$(BIN)/pip-audit --skip-editable
	$(BIN)/pip-audit --require-hashes --disable-pip -r targets/lava/requirements.txt

docs: $(STAMP)  ## the documentation site in build/site; a link or a name that leads nowhere ends it
	@$(BIN)/python docs/site.py

check: $(STAMP) docs  ## style, format, types, who may import what, and the documentation's links
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=.types $(BIN)/mypy $(TYPED)
	$(BIN)/lint-imports

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
