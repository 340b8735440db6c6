# Every target makes .venv when it is needed; `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY)  ## make .venv with the tested versions, this project editable in it

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY)  ## train on the embedded corpus, translate its test set, print BLEU and chrF
	$(BIN)/python -m app.data.demo_corpus outputs/demo-corpus
	$(BIN)/python -m app.train experiment=demo task.data=outputs/demo-corpus run_dir=outputs/demo
	$(BIN)/python -m app.generate checkpoint=outputs/demo split=test output_file=outputs/demo/test.de
	@echo && paste -d '\n' outputs/demo-corpus/test.en outputs/demo/test.de | head -n 6
	@echo && echo "learning curves: outputs/demo/curves.svg   all translations: outputs/demo/test.de"

test: lint types  ## lint, types and all tests, with coverage
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m 'not slow and not slurm' --cov=app --cov-report=term
	test -z "$$CI" || $(MAKE) slurm-test

slurm-test: $(READY)  ## sweeps, several nodes and preemption on a real Slurm, installed and started here (root, Debian)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slurm tests/slurm

serve-test: $(READY)  ## the served page in a real browser (apt-get install chromium); outputs/page.png is what it shows
	mkdir -p outputs && SCREENSHOT=outputs/page.png $(BIN)/python -m pytest tests/test_serve.py tests/test_serve_page.py

lint: $(READY)  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## mypy, strict
	$(BIN)/mypy

slow: $(READY)  ## the tests that take more than a minute
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

faults: $(READY)  ## every fault of docs/reliability.md, as often as it says: a line each (up to 40 minutes)
	$(BIN)/python -m tests.faults

bench: $(READY)  ## speed of training and generation on this machine, and the cost of checkpoints; ONLY='A B' for some rows
	$(BIN)/python -m benchmarks.speed $(if $(ONLY),--only $(ONLY))
	$(BIN)/python -m benchmarks.checkpoints

zoo: $(READY)  ## train every model family on DATA (or ZOO_DATA): before, baseline, after; half an hour
	$(BIN)/python -m benchmarks.zoo $(DATA)

clean:  ## remove what tools left; runs and .venv stay
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

bench-decode: $(READY)  ## speed of translation, ours, CTranslate2's and fairseq's, with the weights of outputs/multi30k
	$(BIN)/python -m benchmarks.decode

.PHONY: help setup demo test slurm-test serve-test lint types slow faults bench bench-decode zoo clean
