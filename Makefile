# make quickstart   the whole story on this machine: train, evaluate, release
# make test         install what is needed and run the whole test suite
# make test-fast    the inner loop: the tests that neither train a run of their own nor are marked slow (two minutes)
# make test-engines the tests of vLLM, llama.cpp, llm-compressor and DeepSpeed, whose environments are made first (minutes, once)
# make test-large   a file of 3 GB goes to a Hub in less than 1 GB of memory, by each of three ways (minutes; 4 GB of disk)
# make learn        evidence of learning over three seeds, beside RAFT and one iteration alone, in the background (hours)
# make evidence     the planted rewards on a real model, whose recorded cells `make test` replays (hours; goes on where it was)
# make bench        speed beside other tools, both sides in one run (hours; BENCHMARKS="help dedupe" for some)
# make check        lint, types, import rules
#
# Another machine may need torch's CPU index (a plain install takes gigabytes of CUDA):
#   make quickstart PIP_ARGUMENTS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
VENV ?= .venv
PIP_ARGUMENTS ?=
RUN ?= runs/quickstart
OUT ?= release-out
SEEDS ?= 7,8,9
TEST_PROCESSES ?= 2
SLOW_FOLDERS ?= end_to_end optimization planted traps
BENCHMARKS ?= help dedupe scoring length_control growth sampling dpo_step iteration vllm_engine
PLANTED ?= length one_token bullet_list low_entropy honest

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGUMENTS) --constraint constraints.txt

.PHONY: quickstart test test-fast test-engines test-large learn learn-here evidence bench check install install-dev

quickstart: $(VENV)/installed
	$(BIN)/gshf-release prefetch quickstart
	$(BIN)/gshf-release train quickstart --run $(RUN)
	$(BIN)/gshf-release eval $(RUN)
	$(BIN)/gshf-release publish $(RUN) --out $(OUT)
	$(BIN)/gshf-release publish $(RUN) --to your-name/quickstart --dry-run
	$(BIN)/gshf-release report $(RUN)
	@echo "Run:     $(RUN)"
	@echo "Card:    $(OUT)/quickstart/iter-3/README.md"
	@echo "Release: $(OUT)"
	@echo "Next:    $(BIN)/gshf-release verify $(RUN)"
	@echo "         $(BIN)/gshf-release publish $(RUN) --to OWNER/NAME"

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -p no:cacheprovider --durations=10 --numprocesses $(TEST_PROCESSES) --dist loadfile

test-fast: $(VENV)/installed-dev
	$(BIN)/python -m pytest -p no:cacheprovider -m "not engines and not slow" $(SLOW_FOLDERS:%=--ignore=tests/%) \
		--durations=10 --numprocesses $(TEST_PROCESSES) --dist loadfile

test-engines: $(VENV)/installed-dev
	$(PIP) --editable '.[cluster]'
	GSHF_PIP_ARGUMENTS="$(PIP_ARGUMENTS)" $(BIN)/gshf-release setup llama-cpp
	GSHF_PIP_ARGUMENTS="$(PIP_ARGUMENTS)" $(BIN)/gshf-release setup vllm
	GSHF_PIP_ARGUMENTS="$(PIP_ARGUMENTS)" $(BIN)/gshf-release setup quant
	$(BIN)/python -m pytest -p no:cacheprovider -m engines --durations=10 tests/engines

test-large: $(VENV)/installed-dev
	GSHF_TEST_SPARSE_BYTES=3221225472 $(BIN)/python -m pytest -p no:cacheprovider -s tests/hub/test_memory.py

learn: $(VENV)/installed
	@mkdir -p runs
	@nohup $(MAKE) --no-print-directory learn-here >> runs/learn.log 2>&1 &
	@echo "Running in the background; the same command goes on after a stop."
	@echo "Log:     runs/learn.log"
	@echo "Results: $(BIN)/gshf-release report runs/learn runs/learn-raft runs/learn-once"

# learn-once has the prompts and responses of all three iterations in one: DPO on a fixed set of the base's own answers.
learn-here: $(VENV)/installed
	$(BIN)/gshf-release prefetch learn
	$(BIN)/gshf-release train learn --seeds $(SEEDS)
	$(BIN)/gshf-release train learn --seeds $(SEEDS) --run runs/learn-raft --set loop.algorithm=raft
	$(BIN)/gshf-release train learn --seeds $(SEEDS) --run runs/learn-once --set loop.iterations=1 \
		--set prompts.roles.per_iteration=240
	for parent in learn learn-raft learn-once; do for seed in $$(echo $(SEEDS) | tr , ' '); do \
		$(BIN)/gshf-release eval runs/$$parent/seed-$$seed || exit 1; done; done
	$(BIN)/gshf-release report runs/learn --markdown
	$(BIN)/gshf-release report runs/learn runs/learn-raft runs/learn-once --markdown --plot runs/learn.png

evidence: $(VENV)/installed-dev
	$(BIN)/gshf-release prefetch quickstart
	failed=0; for reward in $(PLANTED); do $(BIN)/python -m tests.planted.evidence $$reward || failed=1; done; exit $$failed

bench: $(VENV)/installed-dev
	failed=0; for name in $(BENCHMARKS); do $(BIN)/python -m tests.benchmarks.$$name || failed=1; done; exit $$failed

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(VENV)/installed

install-dev: $(VENV)/installed-dev

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch first and pinned: asked for by another package it may come as a much larger build.
$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) torch
	$(PIP) --editable '.[all]'
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) --editable '.[all,dev]'
	@touch $@
