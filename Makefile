# make quickstart   the whole story on this machine: train, evaluate, release
# make test         install what is needed and run the whole test suite
# make test-fast    the inner loop: the tests that neither train a run of their own nor are marked slow (two minutes)
# make test-engines the tests of vLLM, llama.cpp, llm-compressor and DeepSpeed, whose environments are made first (minutes, once)
# make test-large   a file of 3 GB goes to a Hub in less than 1 GB of memory, by each of three ways (minutes; 4 GB of disk)
# make learn        the experiment of docs/learning.md: nine arms over three seeds, in the background (hours)
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
SEEDS ?= 11,12,13
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
	$(BIN)/gshf-release samples $(RUN)
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
	@echo "Results: $(BIN)/gshf-release report runs/learn/gshf runs/learn/offline"

# The arms of docs/learning.md. Offline arms train on as many samples as the loop draws in all, for more optimiser steps.
LEARN = $(BIN)/gshf-release train learn --seeds $(SEEDS)
OFFLINE = --set loop.resample=false --set prompts.roles.per_iteration=240 --set loop.iterations=6 --set training.epochs=1
YARDSTICKS = --set evaluation.best_of=[2,4,8,16,32,64] --set evaluation.temperatures=[0.3,0.5,0.7,0.85]
ARMS := gshf offline raft gshf-no-nll offline-no-nll gshf-beta-0.3 offline-beta-0.3 gshf-beta-0.3-no-nll offline-beta-0.3-no-nll
NO_NLL := --set training.sft_weight=0
BETA := --set training.beta=0.3

learn-here: $(VENV)/installed
	$(BIN)/gshf-release prefetch learn
	$(LEARN) --run runs/learn/gshf $(YARDSTICKS)
	$(LEARN) --run runs/learn/offline $(OFFLINE)
	$(LEARN) --run runs/learn/raft --set loop.algorithm=raft
	$(LEARN) --run runs/learn/gshf-no-nll $(NO_NLL)
	$(LEARN) --run runs/learn/offline-no-nll $(OFFLINE) $(NO_NLL)
	$(LEARN) --run runs/learn/gshf-beta-0.3 $(BETA)
	$(LEARN) --run runs/learn/offline-beta-0.3 $(OFFLINE) $(BETA)
	$(LEARN) --run runs/learn/gshf-beta-0.3-no-nll $(BETA) $(NO_NLL)
	$(LEARN) --run runs/learn/offline-beta-0.3-no-nll $(OFFLINE) $(BETA) $(NO_NLL)
	for arm in $(ARMS); do $(BIN)/gshf-release eval runs/learn/$$arm || exit 1; done
	$(BIN)/gshf-release report $(ARMS:%=runs/learn/%) --markdown --plot runs/learn/frontier.png

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
