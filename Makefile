# Thin wrappers over the documented commands: `make -n TARGET` prints what a target runs.
.DEFAULT_GOAL := help
.PHONY: help run test test-all lint docs dvc.yaml pretrain demonstration environment

BIN := .venv/bin
SITE := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

# Stages find this checkout's interpreter, whatever environment the caller has activated.
export DUALPRIV_PYTHON := $(CURDIR)/$(BIN)/python
export PATH := $(CURDIR)/$(BIN):$(PATH)

help: ## print this
	@sed -n 's/^\([a-z.-]*\):.*## /\1	/p' Makefile

run: environment ## run the whole pipeline and print its results
	$(BIN)/dvc repro
	$(BIN)/dualpriv show

test: lint ## lint, then every test that takes seconds
	$(PYTEST) -m "not slow"

test-all: lint ## lint, then every test
	$(PYTEST)

lint: environment ## style, types, whether dvc.yaml is current, and whether the site builds
	$(BIN)/ruff check .
	$(BIN)/mypy stages pipeline
	$(BIN)/python -m pipeline.dvcfile --check
	@$(SITE) --quiet

docs: environment ## bring the figures in docs/ up to date and write the site to build/site
	$(BIN)/python -m benchmarks.pages
	$(SITE)

dvc.yaml: environment ## render dvc.yaml from the stage classes
	$(BIN)/python -m pipeline.dvcfile

pretrain: environment ## train the demonstration backbone again, on public records, and record it
	$(BIN)/python -m stages.pretrain
	$(BIN)/dvc commit --force pretrain

demonstration: environment ## make the demonstration records again
	$(BIN)/python -m stages.demonstration

environment: # make .venv where it is missing or out of date
	@sh pipeline/environment.sh
