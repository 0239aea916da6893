# Everything is set up in .venv by the first command that needs it; a second one starts at once.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
TORCH_PACKAGE := torch==2.13.0
TORCH ?=
TORCH_FLAGS ?=
PROMPT ?= Once upon a time
SEED ?=
FLAGS ?=
TEST_FLAGS ?=

SDKS := build/sdks
PAGE := build/page

.PHONY: help run test page-test sdk-test coverage chaos image compose-test bench lint fuzz format stubs clean

help: ## say what there is to make
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

run: $(INSTALLED) ## continue a prompt on a local cluster with the embedded model (TORCH=cpu|cuda, PROMPT="…", FLAGS="…")
	@echo '3/3 model: the embedded one, on a cluster of four processes' >&2
	@$(BIN)/moesaic generate $(FLAGS) "$(PROMPT)"
	@printf '%s\n' '' 'Next, in this shell:' '  . $(BIN)/activate    # it finds the command from then on' \
		'  moesaic serve          # a cluster that stays; Ctrl-C ends it' \
		'  moesaic chat           # in another shell: talk to it' >&2

# Three files at a time, since tests wait as much as they compute on two cores. In their order, since the longest
# ones, which would else be the last, come early.
test: $(INSTALLED_DEV) ## run the tests
	$(BIN)/pytest -q --durations=15 -m "not alone and not sdk and not page" -n 3 --dist loadfile --no-loadscope-reorder $(TEST_FLAGS)
	$(BIN)/pytest -q -m alone

page-test: $(INSTALLED_DEV) $(PAGE)/.installed ## look at the tracing page in a headless chromium
	$(BIN)/pytest -q -m page tests/tracing/test_page.py

sdk-test: $(INSTALLED_DEV) $(SDKS)/.installed ## have packages of OpenAI's API ask a local cluster over HTTP, and fuzz it (SECONDS_OF_FUZZING=60 for a minute of that)
	$(BIN)/pytest -q -m sdk tests/sdks

coverage: ## run the tests and print which lines and branches of services/ they miss
	@$(MAKE) --no-print-directory test TEST_FLAGS="--cov --cov-report=term-missing"
	@echo 'Counted in the processes of the tests alone: what services and commands run as processes of their own reach is not.'

chaos: $(INSTALLED) ## break a cluster under load for some minutes, on a schedule drawn from a seed (SEED=n repeats one)
	$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(FLAGS)

image: ## build the container image (TORCH_FLAGS="…" for a torch without CUDA)
	@TORCH_FLAGS="$(TORCH_FLAGS)" deploy/build-image $(FLAGS)

compose-test: $(INSTALLED_DEV) ## build the image, bring the composed cluster up and break it under load
	@TORCH_FLAGS="$(TORCH_FLAGS)" $(BIN)/python -m tests.compose $(FLAGS)

bench: $(INSTALLED) ## run the benchmarks, with tables, JSON and plots into build/bench (FLAGS="--quick")
	$(BIN)/pip install --quiet -c constraints.txt -e ".[bench]"
	@for name in kernels transport layer scale generate sampling door hosting placement tracing crowd real_size; do $(BIN)/python -m bench.$$name $(FLAGS) || exit 1; done

lint: $(INSTALLED_DEV) ## check style, types, protos and the C sources
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint protos
	scripts/check-c

fuzz: $(INSTALLED_DEV) ## read altered frames for a minute with a codec, a framing and streams that have sanitizers (SECONDS_OF_FUZZING=n)
	scripts/check-sanitised

format: $(INSTALLED_DEV) ## put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.[ch]')

stubs: ## generate moesaic/v1 from protos/
	scripts/generate-stubs

clean: ## remove what was made here
	rm -rf $(VENV) build dist *.egg-info .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "moesaic needs Python 3.11 or newer" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml setup.py constraints.txt $(wildcard services/kernels/native/* services/wire/native/*.[ch] services/wire/http2/*.[ch] services/wire/connections/*.[ch] services/router/native/* services/expert/native/*) 
	@test -n "$(PYTHON)" || { echo "moesaic needs Python 3.11 or newer" >&2; exit 1; }
	@TORCH="$(TORCH)" TORCH_FLAGS="$(TORCH_FLAGS)" scripts/set-up "$(PYTHON)" $(VENV) $(TORCH_PACKAGE)
	@touch $@

# Packages of clients, which would pin what the project pins otherwise.
$(PAGE)/.installed: | $(BIN)/python
	$(BIN)/pip install --quiet 'playwright>=1.40,<2'
	npm install --silent --prefix $(PAGE) axe-core@4
	touch $@

$(SDKS)/.installed: tests/sdks/requirements.txt tests/sdks/package-lock.json | $(BIN)/python
	$(BIN)/python -m venv $(SDKS)
	$(SDKS)/bin/pip install --quiet -r tests/sdks/requirements.txt
	npm ci --silent --prefix tests/sdks
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@
