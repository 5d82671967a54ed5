# `make` alone prints the targets.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
BIN := .venv/bin
DATA ?= digits

help: ## print the targets
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' \
		| awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'

# uv resolves nothing here: the lock names every package and version.
.venv/installed: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@command -v uv >/dev/null || test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	@UV=$$(command -v uv || echo $(BIN)/uv); \
		$$UV pip install --quiet --python $(BIN)/python -r requirements.lock && \
		$$UV pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

install: .venv/installed ## build .venv from requirements.lock

# All but bench, whose packages are the rivals' own and bring a hundred more.
EXTRAS := service worker onnx openvino timm dev

lock: ## resolve pyproject.toml anew into requirements.lock
	UV=$$(command -v uv || echo $(BIN)/uv); \
		$$UV pip compile --quiet --universal $(EXTRAS:%=--extra %) --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links pyproject.toml -o requirements.lock

# Files of tests go to two processes, each computing with one thread.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

demo: install ## the whole path on this machine: DATA=digits (default) or DATA=mnist
	@$(BIN)/python -m examples.demo $(DATA)

test: install ## all tests but benchmarks, on SQLite and PostgreSQL
	@$(PYTEST)

check: install ## format, lint, types, import contracts, tests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(PYTEST)

format: install ## format and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench-promise: install ## how often a promise is broken, over thousands of searches
	@$(BIN)/python -m benchmarks.promise

rivals: install
	@UV=$$(command -v uv || echo $(BIN)/uv); \
		$$UV pip install --quiet --python $(BIN)/python -c requirements.lock -e '.[bench]'

bench-rivals: rivals ## ours and others' ways to choose ranks, on the same networks
	@$(BIN)/python -m benchmarks.rivals $(ARGUMENTS)

bench-paper: rivals ## the tables of Song et al. 2021, ours, and two networks of today: hours
	@$(BIN)/python -m benchmarks.paper $(ARGUMENTS)

bench-recurrent: rivals ## recurrent layers in all formats: what they cost, and how they learn
	@$(BIN)/python -m benchmarks.recurrent $(ARGUMENTS)

bench-noise: install ## identical networks raced against each other
	@$(BIN)/python -m benchmarks.noise $(ARGUMENTS)

results: install ## write the pages that are made: tables from benchmarks/results, supported layers
	@$(BIN)/python -m benchmarks.tables
	@$(BIN)/python -m benchmarks.support

bench-formats: install ## networks in as .pt2, out in all forms: half an hour; OLDER=python of torch 2.11
	@$(BIN)/python -m benchmarks.formats $(if $(OLDER),--older $(OLDER))

bench-sequences: install ## LSTMs through a service of their own, judged with torch alone
	@$(BIN)/python -m benchmarks.sequences $(ARGUMENTS)

.PHONY: help install lock demo test check format results rivals bench-formats bench-noise \
	bench-paper bench-promise bench-recurrent bench-rivals bench-sequences
