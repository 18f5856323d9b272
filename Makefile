# Everything a person types. `make` alone lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NEW_ENOUGH := import sys; sys.version_info >= (3, 11) or \
  sys.exit("%s is Python %s, older than 3.11; name another: make PYTHON=python3.11" % (sys.executable, sys.version.split()[0]))
UV_VERSION := 0.13.9
# uv does not read pip's find-links, where a CPU build of torch may lie.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := 1
export PATH := $(CURDIR)/$(BIN):$(PATH)
PORT ?= 5000
PODMAN ?= podman
MINUTES ?= 60
SEEDS ?= 0
TARGET ?= cpu
OLDEST ?= 2.6.0 2.11.0
# Several times as fast as gzip, and smaller; kernels before 4.14 cannot read it: SIF_OPTIONS=
SIF_OPTIONS ?= --mksquashfs-args='-comp zstd -Xcompression-level 6'

.PHONY: help setup reproduce test test-unit test-oldest test-container lint format ui report workflow-report docs bench gpu-campaign lock audit image sif schema clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## install everything into .venv, from the lock file

$(STAMP): envs/requirements.lock envs/hashes.lock envs/installer.lock pyproject.toml
	@# An environment without pip is left by an attempt that failed because Debian's python3-venv was missing.
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { $(PYTHON) -c '$(NEW_ENOUGH)' && $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --require-hashes --requirement envs/installer.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -r envs/requirements.lock -c envs/hashes.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

reproduce: setup ## fetch, train, track, tables, figures: everything at the scale of params.yaml
	$(BIN)/python workflow/scripts/unlock_stale.py
	@# Bars in a terminal, Snakemake's own lines in a file.
	[ ! -t 2 ] || set -- --logger spectralgru; \
	  PYTHONPATH="$(CURDIR)/workflow/logger:$$PYTHONPATH" snakemake --cores all "$$@"

# Three on two cores: many tests wait, for a cluster, a server or a kill.
SPREAD = --numprocesses 3 --dist loadfile --no-loadscope-reorder

test: setup ## all tests
	pytest $(SPREAD)

test-container: setup ## the tests of the container image: minutes, root on Debian
	pytest -m container tests/container

test-unit: setup ## the unit tests alone
	pytest $(SPREAD) tests/unit

# Those of the library and the trainer, which need torch and numpy alone.
TORCH_TESTS = $(shell grep -LE 'pipeline|pandas|yaml|safetensors|snakemake|mlflow|benchmarks|scripts|griffe' tests/unit/test_*.py)

test-oldest: setup ## unit tests with the oldest torch that is promised, and with 2.11 (gigabytes; OLDEST=2.13.0 PYTHON=python3.13)
	for torch in $(OLDEST); do PYTHONPATH=src $(BIN)/uv run --no-project --isolated --python $(PYTHON) \
	  --with torch==$$torch --with numpy --with filelock --with hypothesis --with pytest --with setuptools --with matplotlib \
	  python -m pytest -q -p no:cacheprovider $(TORCH_TESTS) || exit 1; done

lint: setup ## style, types, workflow
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	snakefmt --check Snakefile workflow/Snakefile workflow/rules
	snakemake --lint
	actionlint

format: setup ## bring the style in order
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow/Snakefile workflow/rules

ui: setup ## MLflow in a browser, at an address that only its starter knows (PORT=5000, 0: any)
	spectralgru track # only what is not there yet
	spectralgru ui --port $(PORT)

report: setup ## results/<scale>/report.html: one page of answer, tables, figures, claims, provenance
	snakemake --cores all report
	@spectralgru report

workflow-report: setup ## workflow-report.html: the jobs that ran, their times and code
	snakemake --report workflow-report.html

docs: setup ## the site of docs/, in site/index.html; works from the folder, too
	rm -rf build/pages && mkdir -p build/pages/benchmarks build/pages/config
	cp -RL README.md CONTRIBUTING.md CHANGELOG.md SECURITY.md docs reproduction params.yaml build/pages
	cp -RL benchmarks/results build/pages/benchmarks
	cp config/README.md build/pages/config
	typer spectralgru.pipeline.cli utils docs --name spectralgru --title "Command line" --output build/commands.md
	sed -E 's#\(docs/([a-z]+)\.md\)#([\1](\1.md))#' build/commands.md > build/pages/docs/commands.md
	zensical build --clean --strict

bench: setup ## benchmarks, as ratios against named baselines
	spectralgru bench

gpu-campaign: data/prepared/nottingham.npz data/prepared/ptb.npz scripts/jobs ## on a GPU: checks, then Tables 1 and 2 at paper scale; again: goes on (MINUTES=60 SEEDS="0 1")
	test ! -x $(BIN)/spectralgru || $(BIN)/python scripts/gpu_jobs.py
	$(shell test -x $(BIN)/python && echo $(BIN)/python || echo $(PYTHON)) scripts/gpu_campaign.py \
	  --bring-home results/gpu --seconds $$((60 * $(MINUTES))) --seed $(SEEDS)

# Where these are, as on a bare machine that they were copied to, nothing has to be installed.
data/prepared/%.npz:
	$(MAKE) setup
	spectralgru prepare --corpus $*

scripts/jobs:
	$(MAKE) setup

lock: setup ## resolve the versions anew
	UV_FIND_LINKS= $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-header \
	  --excludes envs/lock-excludes.txt --constraint envs/constraints.txt \
	  --extra pipeline --extra postgres --extra cluster --extra docs --extra dev pyproject.toml -o envs/requirements.lock
	UV_FIND_LINKS= $(BIN)/uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	  --no-header --no-annotate envs/requirements.lock | grep -Ff envs/lock-excludes.txt > envs/cuda.lock
	# A hash of torch would suit one of its builds only.
	UV_FIND_LINKS= $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
	  --excludes envs/lock-excludes.txt --generate-hashes --no-emit-package torch \
	  envs/requirements.lock -o envs/hashes.lock
	echo uv==$(UV_VERSION) | UV_FIND_LINKS= $(BIN)/uv pip compile --quiet --no-header --no-annotate \
	  --generate-hashes - -o envs/installer.lock

audit: setup ## known vulnerabilities of the pinned versions (needs the network)
	$(BIN)/uv tool run pip-audit --strict --requirement envs/requirements.lock --no-deps --disable-pip

image: ## the container image spectralgru:cpu, or TARGET=cuda
	$(PODMAN) build --target $(TARGET) --timestamp 0 --tag spectralgru:$(TARGET) --file envs/Dockerfile $(IMAGE_OPTIONS) .

sif: ## spectralgru.sif for Apptainer, from that image
	$(PODMAN) save --quiet --output spectralgru.tar spectralgru:$(TARGET)
	apptainer build --force $(SIF_OPTIONS) spectralgru.sif docker-archive:spectralgru.tar
	rm spectralgru.tar

schema: setup ## write the JSON schema of params.yaml
	spectralgru schema > workflow/schemas/params.schema.json

clean: ## remove results, logs and caches; corpora and the environment stay
	rm -rf results logs workflow-report.html .checkpoints .snakemake mlflow.db mlruns mlartifacts
