# `make demo` and `make test` work on a fresh Debian or Ubuntu with Python 3.11 or later; they fetch what they need.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench docs docs-claims docs-simulate docs-peers docs-http lock clean
MAKEFLAGS += --no-print-directory
BIN := .venv/bin
export PYTHON

help:
	@echo "make demo        see it work: one load, three ways to close, under a minute, no root"
	@echo "make test        the tests; fetches nginx and the other peers where it may"
	@echo "make lint        ruff and mypy --strict; make format mends what can be mended"
	@echo "make bench       speed beside wrk, ab, h2load, hey and siege; minutes"
	@echo "make docs        writes docs/ and the README's output again, from the program itself"
	@echo "make docs-peers  writes docs/peers.md again: what peers say when connections fail; minutes"
	@echo "make docs-claims writes docs/claims.md again: every claim as an experiment; forty minutes"
	@echo "make docs-simulate writes docs/simulate.md again: simulations held against the lab; three minutes"
	@echo "make docs-http   writes docs/http-differences.md again: the same bytes to us, HAProxy and nginx; seconds"
	@echo "make lock        requirements*.lock from pyproject.toml"

demo:
	@scripts/setup run
	@$(BIN)/timewait demo

# ARGS goes to pytest: make test ARGS='tests/tcp -k ports'
test:
	@scripts/setup dev
	@scripts/peers
	@$(BIN)/python -m pytest $(ARGS)

lint:
	@scripts/setup dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

format:
	@scripts/setup dev
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

# ARGS goes to the benchmark: make bench ARGS='--rounds 3'
bench:
	@scripts/setup dev
	@scripts/peers
	@$(BIN)/python -m bench $(ARGS)

docs:
	@scripts/setup dev
	@$(BIN)/python scripts/docs.py $(ARGS)

# What the peers say when connections fail, beside what timewait says: minutes.
docs-peers:
	@scripts/setup dev
	@scripts/peers
	@$(BIN)/python scripts/compare_peers.py

# Every claim, the slow ones too, which wait for the kernel's own 60 s and 2,147 s. ARGS=--quick leaves those out.
docs-claims:
	@scripts/setup dev
	@scripts/peers
	@$(BIN)/python scripts/claims_page.py $(ARGS)

# The same experiments in the lab and simulated.
docs-simulate:
	@scripts/setup dev
	@scripts/peers
	@$(BIN)/python scripts/simulate_page.py $(ARGS)

# What this balancer, HAProxy and nginx make of the same bytes.
docs-http:
	@scripts/setup dev
	@scripts/peers
	@$(BIN)/python scripts/http_differences.py

lock:
	@scripts/lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
