# Two commands on a fresh machine: `make demo` and `make test`. Both set up what they need.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PEERS  := .peers

# What the tests hold layerbuild against: real registries, runtimes, readers and shells, a browser; from Debian.
SYSTEM := docker-registry podman runc skopeo umoci git openssl chromium chromium-driver npm zsh fish

# What the benchmarks measure it against besides.
RIVALS := buildah curl

.PHONY: help setup demo test lint check system peers bench docs clean

help:
	@echo "make demo    set up, and run the main job on a small project (no network but PyPI)"
	@echo "make test    set up, and run every check and test"
	@echo "make docs    build the documentation as a site, into site/"
	@echo "make lint    types, style and the direction of imports"
	@echo "make bench   measure against other tools (see benchmarks/)"

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: setup
	@rm -rf demo
	@$(BIN)/layerbuild demo demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Installs only what is missing, and only as root: elsewhere it says what to ask for.
system:
	@PYTHON="$(PYTHON)" sh tests/install-peers.sh system $(SYSTEM)

peers: setup system
	@PYTHON="$(BIN)/python" sh tests/install-peers.sh clients $(PEERS)

test: setup lint peers
	$(BIN)/python -m pytest -n 2 --dist loadgroup

docs: setup
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "see site/index.html; or, with the search: $(BIN)/python -m http.server -d site -b 127.0.0.1"

bench: setup peers
	@PYTHON="$(PYTHON)" sh tests/install-peers.sh system $(RIVALS)
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/parallelpush.py
	$(BIN)/python benchmarks/coldstart.py

clean:
	rm -rf $(VENV) $(PEERS) demo dist site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
